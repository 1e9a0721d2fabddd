"""Any tampering with an export is found: edits, cuts, swaps, insertions, foreign checkpoints."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from controller.audit.chain import EMPTY, Broken, Entry, Head, entry_hash
from controller.audit.trail import Walked
from controller.cli.audit.file import CheckpointLine, End, EntryLine, Header, line_of, write_line
from controller.cli.audit.offline import verify_file
from protocol.checkpoint import Checkpoint
from protocol.errors import SteadError
from protocol.merkle import Frontier, prove_inclusion
from tests.unit.audit.signing import AT, OTHER, TENANT, Signers, node_of

SIGNERS = Signers.new()
STRANGER = Signers.new()
KINDS = (
    "edit",
    "cut end",
    "cut middle",
    "cut start",
    "swap",
    "insert",
    "double",
    "rewrite",
    "old checkpoint",
    "other log's checkpoint",
    "other key",
    "truncate",
    "no end",
    "false end",
)


def history(chance: random.Random, log: str = TENANT) -> list[Entry]:
    made: list[Entry] = []
    head = EMPTY
    for number in range(1, chance.randint(3, 24)):
        fields = (AT + timedelta(seconds=number), "operator/ann", "seen", f'{{"n":{number}}}')
        head = Head(number, entry_hash(head.hash, log, number, *fields))
        previous = made[-1].hash if made else EMPTY.hash
        made.append(Entry(log, number, *fields, previous, head.hash))
    return made


def signed(entries: list[Entry], log: str = TENANT, by: Signers = SIGNERS) -> str:
    tree = Frontier()
    for one in entries:
        tree.add(one.hash)
    head = entries[-1].hash if entries else EMPTY.hash
    at = AT + timedelta(minutes=len(entries))
    return by.sign(Checkpoint(log, len(entries), tree.root(), head, at)).hex()


def lines_of(entries: list[Entry], chance: random.Random) -> list[object]:
    lines: list[object] = [Header(1, TENANT, "acme", AT, signed(entries))]
    for number, one in enumerate(entries, 1):
        lines.append(line_of(one))
        if number == len(entries) or chance.random() < 0.3:
            lines.append(CheckpointLine(signed(entries[:number])))
    return [*lines, End(len(entries))]


def filtered(entries: list[Entry], chosen: list[Entry]) -> list[object]:
    node = node_of([one.hash for one in entries])
    proofs = [list(prove_inclusion(one.seq - 1, len(entries), node)) for one in chosen]
    body = [line_of(one, proof) for one, proof in zip(chosen, proofs, strict=True)]
    header = Header(1, TENANT, "acme", AT, signed(entries), {"event": "seen"})
    return [header, *body, End(len(body))]


def written(path: Path, lines: list[object]) -> Path:
    with path.open("wb") as file:
        for line in lines:
            write_line(file, line)  # type: ignore[arg-type]
    return path


def is_sound(path: Path) -> bool:
    try:
        return isinstance(verify_file(path, SIGNERS.certificate).result, Walked)
    except SteadError:
        return False


def tampered(lines: list[object], kind: str, chance: random.Random) -> list[object]:
    places = [at for at, line in enumerate(lines) if isinstance(line, EntryLine)]
    at = chance.choice(places)
    line = lines[at]
    assert isinstance(line, EntryLine)
    new = list(lines)
    match kind:
        case "edit":
            field = chance.choice(["actor", "event", "body", "at_us", "sequence", "hash"])
            changed = {"at_us": line.at_us + 1, "sequence": line.sequence + 1, "hash": "00" * 32}
            new[at] = _with(line, **{field: changed.get(field, "changed")})
        case "cut end":
            new = [*lines[: places[-1]], End(len(places) - 1)]
        case "cut middle" | "cut start":
            del new[places[0] if kind == "cut start" else chance.choice(places[:-1])]
            new[-1] = End(len(places) - 1)
        case "swap":
            other = chance.choice([one for one in places if one != at])
            new[at], new[other] = new[other], new[at]
        case "insert" | "double":
            new.insert(at, line if kind == "double" else _with(line, body="slipped in"))
            new[-1] = End(len(places) + 1)
        case "rewrite":
            anew, head = [], EMPTY
            for place in places:
                old = lines[place]
                assert isinstance(old, EntryLine)
                one = old.entry(TENANT)
                body = "anew" if place >= at else one.body
                digest = entry_hash(head.hash, TENANT, one.seq, one.at, one.actor, one.event, body)
                anew.append(
                    Entry(TENANT, one.seq, one.at, one.actor, one.event, body, head.hash, digest)
                )
                head = Head(one.seq, digest)
            for place, one in zip(places, anew, strict=True):
                new[place] = line_of(one)
        case "old checkpoint":
            before = [lines[place].entry(TENANT) for place in places[:-1]]  # type: ignore[attr-defined]
            new[0] = Header(1, TENANT, "acme", AT, signed(before))
        case "other log's checkpoint":
            new[0] = Header(1, TENANT, "acme", AT, signed(history(chance, OTHER), OTHER))
        case "other key":
            entries = [lines[place].entry(TENANT) for place in places]  # type: ignore[attr-defined]
            new[0] = Header(1, TENANT, "acme", AT, signed(entries, by=STRANGER))
        case "truncate" | "no end":
            new = lines[: at + 1] if kind == "truncate" else lines[:-1]
        case "false end":
            new[-1] = End(len(places) + 1)
    return new


def _with(line: EntryLine, **changes: object) -> EntryLine:
    import msgspec

    return msgspec.structs.replace(line, **changes)


def tamper(path: Path, count: int, seed: int) -> dict[str, int]:
    """Tamper so many times; how often each kind was found. Fails on the first that is not."""
    chance, found = random.Random(seed), dict.fromkeys(KINDS, 0)
    for number in range(count):
        lines = lines_of(history(chance), chance)
        assert is_sound(written(path, lines)), f"seed {seed}, number {number}"
        kind = KINDS[number % len(KINDS)]
        if len([1 for line in lines if isinstance(line, EntryLine)]) < 2:
            continue
        bad = tampered(lines, kind, chance)
        assert not is_sound(written(path, bad)), f"seed {seed}, number {number}: {kind}"
        found[kind] += 1
    return found


def test_tampering_is_found(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    assert all(tamper(tmp_path / "export", 140, seed).values())


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_ten_thousand_tamperings_are_all_found(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    found = tamper(tmp_path / "export", 10_500, seed)
    print(f"seed {seed}: {found}")
    assert sum(found.values()) >= 10_000


def test_a_filtered_export_proves_each_entry(tmp_path: Path) -> None:
    chance = random.Random(7)
    entries = history(chance)
    path = written(tmp_path / "export", filtered(entries, entries[1::2]))
    judged = verify_file(path, SIGNERS.certificate)
    assert judged.filtered
    assert isinstance(judged.result, Walked)
    for kind in ("edit", "swap", "double", "truncate", "no end", "other key"):
        bad = tampered(filtered(entries, entries[1::2]), kind, chance)
        if kind == "other key":
            bad[0] = Header(1, TENANT, "acme", AT, signed(entries, by=STRANGER), {"event": "x"})
        assert not is_sound(written(tmp_path / "bad", bad)), kind


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    chance = random.Random(3)
    entries = history(chance)
    lines = lines_of(entries, chance)
    place = [at for at, line in enumerate(lines) if isinstance(line, EntryLine)][1]
    line = lines[place]
    assert isinstance(line, EntryLine)
    lines[place] = _with(line, body="changed")
    found = verify_file(written(tmp_path / "export", lines), SIGNERS.certificate).result
    assert found == Broken(2, "the entry was altered")
