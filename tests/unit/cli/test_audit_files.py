"""`stead audit verify --from` and `compare` with what people really hand in."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controller.audit.chain import Entry, Head
from controller.audit.trail import Mark
from controller.cli.audit.checking import check_marks
from controller.cli.audit.file import EntryLine
from controller.cli.audit.heads import SeenHeads
from controller.cli.main import run
from controller.cli.new_file import new_file
from protocol.codec import encode_revocations, encode_signed_revocations
from protocol.errors import Code, SteadError
from protocol.identity import key_hash
from protocol.revocation import DistrustedAuthority, Revocations, sign_revocations
from tests.property.test_audit_export import (
    SIGNERS,
    STRANGER,
    filtered,
    history,
    lines_of,
    signed,
    written,
)
from tests.unit.audit.signing import AT, OTHER, TENANT, checkpoint

LOG = history(random.Random(5))
assert len(LOG) > 6


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A profile that knows the root and nothing else."""
    (tmp_path / "operator").mkdir()
    certificate = SIGNERS.certificate.public_bytes(Encoding.PEM)
    (tmp_path / "operator" / "root.pem").write_bytes(certificate)
    return tmp_path


def exported(path: Path, log: list[Entry]) -> Path:
    return written(path, lines_of(log, random.Random(1)))


def forked(log: list[Entry], number: int) -> list[Entry]:
    """The same log with another entry there and from there on, as a controller would sign it."""
    made = log[: number - 1]
    from controller.audit.chain import EMPTY, entry_hash

    for one in log[number - 1 :]:
        before = made[-1].hash if made else EMPTY.hash
        fields = (one.at, one.actor, one.event, '{"another":true}')
        digest = entry_hash(before, TENANT, one.seq, *fields)
        made.append(Entry(TENANT, one.seq, *fields, before, digest))
    return made


def typed(
    capsys: pytest.CaptureFixture[str], home: Path, *words: object
) -> tuple[int, list[dict[str, object]], str]:
    code = run(["--home", str(home), "audit", *map(str, words)])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.strip() else [], said.err


BAD = {
    "empty": b"",
    "csv": b"sequence,at,actor,event,body,hash\n1,x,y,z,{},00\n",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(range(256)),
    "other json": b'{"type":"entry"}\n',
    "list": b"[1,2]\n",
    "deep": b"[" * 100_000 + b"\n",
    "not utf-8": b'{"type":"export","version":1,"log":"\xff\xfe"}\n',
    "surrogate": b'{"type":"export","version":1,"log":"\\ud800","name":"a",'
    b'"exported_at":"2026-05-01T00:00:00Z","checkpoint":"00"}\n',
    "hex": b'{"type":"export","version":1,"log":"","name":"a",'
    b'"exported_at":"2026-05-01T00:00:00Z","checkpoint":"no hex"}\n',
    "kept": b'{"kept":{"tn_1":"AAAA"}}',
    "later version": b'{"type":"export","version":2,"log":"","name":"a",'
    b'"exported_at":"2026-05-01T00:00:00Z","checkpoint":"00"}\n',
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("verb", [("verify", "--from"), ("compare",)])
def test_what_is_no_export_is_refused_by_its_name(
    home: Path, capsys: pytest.CaptureFixture[str], kind: str, verb: tuple[str, ...]
) -> None:
    file = home / "file"
    file.write_bytes(BAD[kind])
    code, rows, said = typed(capsys, home, *verb, file, "-o", "json")
    assert (code, rows) == (2, []), said
    assert str(file) in said.replace("\n", "")


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 1 << 70},
        {"sequence": 0},
        {"sequence": -1},
        {"at_us": 1 << 62},
        {"hash": "zz"},
        {"proof": ["00"]},
    ],
)
def test_a_field_out_of_range_is_damage(
    home: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    for lines in (lines_of(LOG, random.Random(1)), filtered(LOG, LOG[1::2])):
        place = next(at for at, line in enumerate(lines) if isinstance(line, EntryLine))
        lines[place] = msgspec.structs.replace(lines[place], **change)  # type: ignore[type-var]
        if change == {"proof": ["00"]} and lines[0].filter is None:  # type: ignore[attr-defined]
            continue
        file = written(home / "file", lines)
        code, rows, said = typed(capsys, home, "verify", "--from", file, "-o", "json")
        assert code == 1, said
        assert [row["state"] for row in rows] == ["damaged"]


def test_nothing_unsigned_is_slipped_into_a_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = exported(home / "whole", LOG[:3]).read_bytes()
    for place in (b'{"type":"export",', b'{"type":"entry",', b'{"type":"end",'):
        file = home / "file"
        file.write_bytes(data.replace(place, place + b'"approved_by":"root",', 1))
        code, _, said = typed(capsys, home, "verify", "--from", file, "-o", "json")
        assert code in {1, 2}, (place, said)


def test_a_file_cut_at_any_byte_is_never_whole(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = exported(home / "whole", LOG[:3]).read_bytes()
    assert typed(capsys, home, "verify", "--from", home / "whole", "-o", "json")[0] == 0
    file = home / "cut"
    for cut in range(0, len(data) - 2, 23):
        file.write_bytes(data[:cut])
        assert typed(capsys, home, "verify", "--from", file, "-o", "json")[0] in {1, 2}, cut


def test_the_wrong_tenant_and_the_wrong_root_are_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(LOG, random.Random(1))
    lines[0] = msgspec.structs.replace(lines[0], name="another")  # type: ignore[type-var]
    file = written(home / "file", lines)
    # The name is whoever's who wrote the file; the id is signed.
    code, [row], _ = typed(capsys, home, "verify", "--from", file, "-o", "json")
    assert (code, row["log"], row["id"]) == (0, "another", TENANT)
    verify = ("verify", "--from", file, "-o", "json", "--tenant")
    assert typed(capsys, home, *verify, TENANT)[0] == 0
    for wrong in (OTHER, "installation", "another"):
        code, rows, said = typed(capsys, home, *verify, wrong)
        assert (code, rows) == (2, []), said
        assert TENANT in said.replace("\n", "")
    stranger = home / "stranger.crt"
    stranger.write_bytes(STRANGER.certificate.public_bytes(Encoding.PEM))
    for verb in (("verify", "--from"), ("compare",)):
        words = (*verb, file, "--root-certificate", stranger, "-o", "json")
        code, rows, said = typed(capsys, home, *words)
        assert (code, rows) == (4, []), said
        assert "no authority of this installation" in said.replace("\n", " ")


def test_an_auditor_needs_the_roots_certificate_alone(
    home: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    file, nowhere = exported(home / "file", LOG), tmp_path_factory.mktemp("nowhere")
    for verb, good in ((("verify", "--from"), 0), (("compare",), 3)):
        words = (*verb, file, "-o", "json")
        assert typed(capsys, nowhere, *words)[0] == 2
        words = (*words, "--root-certificate", home / "operator" / "root.pem")
        assert typed(capsys, nowhere, *words)[0] == good


def test_a_fork_signed_by_the_controller_does_not_fit_what_the_profile_has_seen(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = exported(home / "other", forked(LOG, 4))
    assert typed(capsys, home, "verify", "--from", other, "-o", "json")[0] == 0
    seen = SeenHeads(home / "operator" / "audit")
    for place, good in ((3, True), (4, False), (len(LOG), False)):
        seen.save(TENANT, Head(place, LOG[place - 1].hash), None)
        code, [row], _ = typed(capsys, home, "verify", "--from", other, "-o", "json")
        assert (code, row["state"]) == ((0, "ok") if good else (1, "damaged"))
    # What was signed is seen, too, where more entries have been seen than the file has.
    short = exported(home / "short", forked(LOG, 4)[:5])
    seen.save(TENANT, Head(len(LOG), LOG[-1].hash), bytes.fromhex(signed(LOG[:5])))
    code, [row], _ = typed(capsys, home, "verify", "--from", short, "-o", "json")
    assert (code, row["state"]) == (1, "damaged")
    seen.save(TENANT, Head(len(LOG), LOG[-1].hash), bytes.fromhex(signed(LOG[:3])))
    code, [row], _ = typed(capsys, home, "verify", "--from", short, "-o", "json")
    assert (code, row["state"]) == (3, "stale")


def test_an_export_of_a_stolen_authority_is_not_taken_for_the_controllers(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported(home / "file", LOG)
    assert typed(capsys, home, "verify", "--from", file, "-o", "json")[0] == 0
    for issuer, good in ((STRANGER.issuing, True), (SIGNERS.issuing, False)):
        stolen = key_hash(issuer.key.public_key())
        listed = Revocations(1, AT, (), (DistrustedAuthority(stolen, "first", AT),))
        made = sign_revocations(encode_revocations(listed), SIGNERS.root.key)
        (home / "operator" / "revocations").write_bytes(encode_signed_revocations(made))
        code, [row], said = typed(capsys, home, "verify", "--from", file, "-o", "json")
        assert (code, row["state"]) == ((0, "ok") if good else (3, "distrusted")), said


def test_a_filtered_export_is_held_against_heads_as_far_as_it_shows_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = written(home / "part", filtered(LOG, LOG[1:3]))
    for place, code in ((2, 0), (len(LOG), 0), (5, 2)):
        for wrong, expected in ((False, code), (True, 1 if code == 0 else code)):
            digest = bytes(32) if wrong else LOG[place - 1].hash
            words = ("verify", "--from", part, "--head", f"{place}:{digest.hex()}", "-o", "json")
            assert typed(capsys, home, *words)[0] == expected


def test_exports_that_part_are_told_apart_by_their_first_entry(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = exported(home / "ann", LOG), exported(home / "bob", forked(LOG, 4)[:-1])
    code, rows, _ = typed(capsys, home, "compare", ann, bob, "-o", "json")
    assert (code, [row["state"] for row in rows]) == (1, ["forked", "forked"])
    assert all("from entry 4 on" in str(row["reason"]) for row in rows)
    early, late = exported(home / "early", LOG[:4]), exported(home / "late", LOG)
    code, rows, _ = typed(capsys, home, "compare", early, late, "-o", "json")
    assert (code, [row["state"] for row in rows]) == (0, ["agrees", "agrees"])
    # A filtered one speaks for its checkpoint; no whole log is there to decide.
    part = written(home / "part", filtered(LOG, LOG[1:3]))
    assert typed(capsys, home, "compare", part, early, "-o", "json")[0] == 3
    assert typed(capsys, home, "compare", part, late, "-o", "json")[0] == 0
    lines = lines_of(LOG, random.Random(1))
    place = next(at for at, line in enumerate(lines) if isinstance(line, EntryLine))
    lines[place] = msgspec.structs.replace(lines[place], body="x")  # type: ignore[type-var]
    code, rows, _ = typed(capsys, home, "compare", written(home / "bad", lines), late, "-o", "json")
    assert (code, [row["state"] for row in rows]) == (1, ["damaged", "agrees"])


def test_witnesses_of_a_log_that_may_not_be_read_are_held_against_each_other() -> None:
    hashes = [one.hash for one in LOG]
    other = [one.hash for one in forked(LOG, 4)]
    one, two = (Mark(checkpoint(each[:5]), of) for each, of in ((hashes, "a"), (other, "b")))
    longer = Mark(checkpoint(hashes[:6]), "c")
    assert check_marks(TENANT, [one, one, longer])["state"] == "ok"
    row = check_marks(TENANT, [longer, one, two])
    assert (row["state"], row["reason"]) == ("damaged", "forked: a and b")


def test_a_new_file_replaces_nothing_and_needs_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        with new_file(path) as file:
            file.write(b"half")
            raise LookupError

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for number in (1, 2):
        with new_file(tmp_path / f"file-{number}") as file:
            file.write(b"whole")
        with pytest.raises(SteadError) as caught, new_file(tmp_path / f"file-{number}"):
            pass
        assert caught.value.code is Code.ALREADY_EXISTS
        with pytest.raises(LookupError):
            broken(tmp_path / "broken")
        assert (tmp_path / f"file-{number}").read_bytes() == b"whole"
        monkeypatch.setattr(os, "link", no_links)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file-1", "file-2"]
