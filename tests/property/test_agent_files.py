"""Whatever is in an agent's files, it starts, or says in words why it does not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.app import _hello
from agent.config import AgentHome
from agent.diagnosis.status import describe
from agent.host import clock
from agent.link.identity import load_identity
from agent.link.ratchet import keep_token, load_holder
from agent.link.rehome import where_to
from agent.link.report import known_sections
from agent.presence import Presence
from agent.tasks.believe import load_believed
from agent.tasks.entry import JournalError
from agent.tasks.execute import Turns
from agent.tasks.intake import Intake
from agent.tasks.journal import Journal
from agent.tasks.standing import LastRun, due_backup, due_drill, note_drill, note_run
from agent.watch.switched_off import SwitchedOff, switch_off
from agent.witness.watch import Witness
from protocol.action import Rehome, RunProgram, SetBackup
from protocol.errors import SteadError
from protocol.identity import OperatorIdentity, Role
from tests.fakes.standing_machine import Heard, Machine
from tests.integration.extremes import DATA

SEED = 20_260_501
FLIPS, CUTS = 5, 2
WORDS = (
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b'{"at":"2026-01-01T00:00:00","state":"x"}',
    b'{"at":"9999-12-31T23:59:59Z","state":"x"}',
    b'{"at":"0001-01-01T00:00:00+14:00","state":"x"}',
    b'{"issued_at":"2026-01-01T00:00:00","link_address":"a:1","enrollment_address":"a:1"}',
    b"deny = " + b"[" * 5000,
    b"limit_upload = " + b"9" * 5000,
    b"limit_upload = 0000-00-00",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
)


async def furnished(machine: Machine) -> None:
    """Have the machine keep one of everything that it keeps."""
    home = machine.home
    sets = SetBackup((b"/nowhere",), "daily", seal_to_machine=True, drills="weekly")
    for action in (sets, RunProgram(("true",)), Rehome("a.example.com:1", "a.example.com:2")):
        await machine.take(machine.signed(action))
    await machine.take(machine.standing())
    for note in (note_run, note_drill):
        note(home, LastRun(machine.at, "succeeded"))
    keep_token(home, bytes(32))
    bob = machine.realm.operator(identity=OperatorIdentity("bob", Role.ADMIN, None))
    machine.revoke_operator(bob, machine.at)
    switch_off(home.watch_off, SwitchedOff(machine.at, b"srv", b"file"))
    home.backup_wish.write_bytes(b"{}")
    (home.cache / "sections").mkdir(parents=True)
    (home.cache / "sections" / "cpu.json").write_bytes(b"{}")
    root, tenant = machine.realm.root.certificate, machine.identity.tenant
    Witness(home).take(root, tenant, b"unsigned", (), machine.at)
    Presence(home, machine.intake, machine.identity, lambda: None).alive(machine.at)
    machine.journal.close()


def begun(home: AgentHome) -> None:
    """What an agent does from its start until its first link."""
    known = load_identity(home)
    journal: Journal | JournalError
    try:
        journal = Journal(home.journal)
    except JournalError as error:
        journal = error

    def believed() -> object:
        return load_believed(home, known)

    intake = Intake(home, believed, journal, Heard(), Turns(), None, lambda: None)  # type: ignore[arg-type]
    try:
        intake.settle()
        intake.run_due()
        intake.prune()
        presence = Presence(home, intake, known.identity, lambda: None)
        presence.connected(clock.now(), timedelta(seconds=30))
        presence.offered(f"ts_{'0' * 26}", b"")  # type: ignore[arg-type]
        presence.told_checkpoint(b"", ())
        presence.revoked(b"")
        presence.ruled(b"")
    finally:
        for running in intake._carries.running.values() if intake._carries else ():
            running.work.cancel()
        if isinstance(journal, Journal):
            journal.close()


def ways(home: AgentHome) -> Iterator[Callable[[], object]]:
    """All that reads files without anybody's asking, and `stead-agent status`."""
    yield lambda: begun(home)
    yield lambda: describe(home)
    yield lambda: load_holder(home)
    yield lambda: known_sections(home)
    yield lambda: where_to(home, home.load_settings())
    yield lambda: _hello(home)(load_identity(home))
    yield lambda: due_backup(home, load_believed(home, load_identity(home)), now=clock.now())
    yield lambda: due_drill(home, load_believed(home, load_identity(home)), now=clock.now())


def damaged(good: bytes, draw: random.Random) -> Iterator[Callable[[Path], object]]:
    """What may stand where a file was."""
    contents = [*WORDS, *DATA[::4], good.replace(b"2026-", b"0001-"), good.replace(b'Z"', b'"')]
    contents += [good[: draw.randrange(len(good) + 1)] for _ in range(CUTS)]
    for _ in range(FLIPS):
        flipped = bytearray(good)
        for _ in range(draw.choice((1, 2, 5)) if good else 0):
            flipped[draw.randrange(len(flipped))] = draw.randrange(256)
        contents.append(bytes(flipped))
    for content in contents:
        yield lambda path, content=content: path.write_bytes(content)  # type: ignore[misc]
    yield lambda path: path.mkdir()
    yield lambda path: path.symlink_to(path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("one_in", [5, pytest.param(1, marks=pytest.mark.full)])
async def test_no_content_of_a_file_ends_an_agent_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_in: int
) -> None:
    print("seed", SEED)
    draw = random.Random(SEED)
    machine = Machine(tmp_path, monkeypatch)
    await furnished(machine)
    home, good = machine.home, tmp_path / "good"
    shutil.copytree(home.path, good)
    files = sorted(path for path in good.rglob("*") if path.is_file())
    assert len(files) > 15
    wrong = set()
    for file in files:
        target = home.path / file.relative_to(good)
        for damage in damaged(file.read_bytes(), draw):
            if draw.randrange(one_in):
                continue
            for number, way in enumerate(ways(home)):
                _remove(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                damage(target)
                try:
                    way()
                except SteadError:
                    pass
                except Exception as error:
                    wrong.add(f"{file.name} {number}: {error!r:.200}")
            shutil.rmtree(home.path)
            shutil.copytree(good, home.path)
    assert sorted(wrong) == []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


async def test_an_offer_that_the_agent_itself_fails_of_has_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)

    def failing() -> object:
        raise OverflowError("date value out of range")

    machine.intake._believed = failing  # type: ignore[assignment]
    outcome = await machine.take(machine.signed(RunProgram(("true",))))
    assert (outcome.code, outcome.state) == ("internal", "rejected")
    machine.start()
    assert (await machine.take(machine.signed(RunProgram(("true",))))).state == "succeeded"
