"""What a machine was before it was called a copy: kept whole, and to be had back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host import files
from agent.link import enroll as enrolling
from agent.link import former as former_module
from agent.link.enroll import finish
from agent.link.former import (
    MOST,
    check_room,
    forget_former,
    former_identities,
    keep_former,
    take_back,
)
from agent.link.identity import load_identity
from protocol.errors import Code, SteadError
from protocol.ids import MachineId
from tests.fakes.link_server import Realm
from tests.integration.test_agent_enroll import Cut, CutError

ADDRESS = "127.0.0.1:1"
OWN = {
    "backup_set": b"set",
    "backup_runs": b"runs",
    "drill_runs": b"drills",
    "vault_order": b"order",
    "ratchet": b"token",
}


def a_machine(realm: Realm, path: Path) -> AgentHome:
    """Enrolled, and told to do something."""
    home = AgentHome(path)
    realm.furnish(home, ADDRESS)
    for part, content in OWN.items():
        getattr(home, part).write_bytes(content)
    home.standing.mkdir()
    (home.standing / "one").write_bytes(b"order")
    return home


def everything(home: AgentHome) -> dict[str, bytes]:
    """All that is this identity's own."""
    parts = ("key", "chain", "root", "sealing_key", "vault_secret", "journal", *OWN)
    found = {part: getattr(home, part).read_bytes() for part in parts}
    return {**found, **{path.name: path.read_bytes() for path in home.standing.iterdir()}}


def present(home: AgentHome) -> MachineId:
    return load_identity(home).identity.machine


def rekeyed(realm: Realm, home: AgentHome) -> None:
    """As `agent.link.rekey` ends."""
    if not AgentHome(home.enrolling).settings.exists():
        realm.furnish(AgentHome(home.enrolling), ADDRESS)
        settings = AgentHome(home.enrolling).settings
        whole = settings.read_bytes()
        settings.unlink()
        keep_former(home, present(home))
        settings.write_bytes(whole)
    finish(home)


def test_a_former_identity_is_had_back_with_all_that_it_was_told(tmp_path: Path) -> None:
    realm = Realm()
    home = a_machine(realm, tmp_path / "agent")
    machine, before = present(home), everything(home)
    running = home.journal.open("ab", buffering=0)
    rekeyed(realm, home)
    # A task that ran meanwhile ends, and is in the journal of whom it was ordered.
    running.write(b"ended\n")
    running.close()
    assert present(home) != machine
    assert not home.backup_set.exists()
    other, sealing = present(home), home.sealing_key.read_bytes()
    [kept] = former_identities(home)
    assert kept.machine == machine
    assert kept.home.key.stat().st_mode & 0o077 == 0
    assert kept.home.path.stat().st_mode & 0o077 == 0
    home.settings.write_text(home.settings.read_text() + "# by its administrator\n")
    take_back(home, machine, other)
    assert present(home) == machine
    assert everything(home) == {**before, "journal": before["journal"] + b"ended\n"}
    assert "by its administrator" in home.settings.read_text()
    # And there again, if that was wrong.
    take_back(home, other, machine)
    assert (present(home), home.sealing_key.read_bytes()) == (other, sealing)
    assert not home.standing.exists()
    forget_former(home, machine)
    assert former_identities(home) == []
    with pytest.raises(SteadError) as caught:
        take_back(home, machine, other)
    assert caught.value.code is Code.NOT_FOUND


def test_a_machine_goes_back_within_its_installation_alone(tmp_path: Path) -> None:
    realm = Realm()
    home = a_machine(realm, tmp_path / "agent")
    machine = present(home)
    rekeyed(realm, home)
    Realm().furnish(AgentHome(home.enrolling), ADDRESS)  # as `enroll --force` elsewhere ends
    finish(home)
    stranger = present(home)
    with pytest.raises(SteadError) as caught:
        take_back(home, machine, stranger)
    assert caught.value.code is Code.PRECONDITION
    assert present(home) == stranger


def test_a_machine_takes_so_many_identities_and_no_more(tmp_path: Path) -> None:
    realm = Realm()
    home = a_machine(realm, tmp_path / "agent")
    for _ in range(MOST):
        check_room(home)
        rekeyed(realm, home)
    with pytest.raises(SteadError) as caught:
        check_room(home)
    assert caught.value.code is Code.PRECONDITION
    forget_former(home, former_identities(home)[-1].machine)
    check_room(home)


def cut_after(count: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> bool:
    """Do something and lose power after so many directories were made durable; if it was done."""
    cut = Cut(count, files.sync_directory)
    with monkeypatch.context() as patched:
        for module in (files, enrolling, former_module):
            patched.setattr(module, "sync_directory", cut)
        try:
            act()
        except CutError:
            return False
    return True


@pytest.mark.parametrize("act", ["rekey", "back"])
def test_wherever_it_is_cut_both_identities_are_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    realm, step, done = Realm(), 0, False
    while not done:
        home = a_machine(realm, tmp_path / str(step) / "agent")
        first, before = present(home), everything(home)
        doing = partial(rekeyed, realm, home)
        if act == "back":
            doing()
            doing = partial(take_back, home, first, present(home))
        done = cut_after(step, monkeypatch, doing)
        finish(home)  # as the next start does
        if present(home) != first:
            assert first in {one.machine for one in former_identities(home)}
            take_back(home, first, present(home))
        assert (present(home), everything(home)) == (first, before)
        step += 1
    assert step > 5
