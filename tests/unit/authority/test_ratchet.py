"""Who is the machine and who is a copy, case by case; the laws are in tests/property."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.host.hardware import hardware
from controller.authority.ratchet import (
    NEVER_OURS,
    PROVEN_AFTER,
    Kept,
    Shown,
    Verdict,
    acknowledged,
    approved,
    generation_of,
    judge,
    token_of,
)
from protocol.ids import MachineId

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY = bytes(range(32))
MACHINE = MachineId("mc_00000000000000000000000001")
HERE, THERE = b"h" * 32, b"t" * 32
KEPT = Kept(generation=9, hardware=HERE)


def told(kept: Kept, shown: Shown, *, linked: bool = False, now: datetime = NOW) -> Verdict:
    return judge(kept, shown, linked=linked, now=now)[0]


def test_a_token_says_its_generation_and_nobody_can_make_a_newer_one() -> None:
    token = token_of(KEY, MACHINE, 7)
    assert generation_of(KEY, MACHINE, token) == 7
    assert generation_of(KEY, MACHINE, b"") == 0
    forged = (8).to_bytes(8, "big") + token[8:]
    assert generation_of(KEY, MACHINE, forged) == NEVER_OURS
    assert generation_of(KEY, MACHINE, token[:-1]) == NEVER_OURS
    assert generation_of(bytes(32), MACHINE, token) == NEVER_OURS
    assert generation_of(KEY, MachineId(MACHINE[:-1] + "2"), token) == NEVER_OURS


@pytest.mark.parametrize(
    ("shown", "verdict"),
    [
        (Shown(9, HERE), Verdict.CURRENT),
        (Shown(10, HERE), Verdict.CURRENT),
        (Shown(40, HERE), Verdict.CURRENT),
        (Shown(9, THERE), Verdict.CURRENT),
        (Shown(8, HERE), Verdict.ROLLED_BACK),
        (Shown(8, THERE), Verdict.CLONE),
        (Shown(8, b""), Verdict.CONTESTED),
        (Shown(0, HERE), Verdict.ROLLED_BACK),
        (Shown(NEVER_OURS, b""), Verdict.CONTESTED),
    ],
    ids=str,
)
def test_what_a_holder_is_told(shown: Shown, verdict: Verdict) -> None:
    assert told(KEPT, shown) is verdict


def test_a_machine_that_has_no_token_yet_is_let_in_until_it_has_one() -> None:
    assert told(Kept(), Shown(0, HERE)) is Verdict.CURRENT
    kept = acknowledged(Kept(), Shown(1, HERE))
    assert kept == Kept(generation=1, hardware=HERE)
    assert told(kept, Shown(0, THERE)) is Verdict.CLONE


def test_an_old_token_beside_a_link_waits_until_the_link_is_dead_or_proved_alive() -> None:
    old = Shown(8, HERE)
    verdict, kept = judge(KEPT, old, linked=True, now=NOW)
    assert verdict is Verdict.WAIT
    assert told(kept, old, linked=True, now=NOW + timedelta(minutes=1)) is Verdict.WAIT
    assert told(kept, old, now=NOW + timedelta(minutes=1)) is Verdict.ROLLED_BACK
    assert told(kept, old, linked=True, now=NOW + PROVEN_AFTER) is Verdict.CONTESTED
    # What happened long ago proves nothing today, nor does a clock that was set back.
    for later in (timedelta(days=1), -timedelta(days=1)):
        assert told(kept, old, linked=True, now=NOW + later) is Verdict.WAIT


def test_after_a_machine_was_put_back_the_state_that_it_lost_is_another_holder() -> None:
    verdict, kept = judge(KEPT, Shown(5, HERE), linked=False, now=NOW)
    assert verdict is Verdict.ROLLED_BACK
    for lost in (6, 9, 10):
        assert told(kept, Shown(lost, HERE)) is Verdict.CONTESTED
    # The same snapshot once more, the answer that was lost, an older snapshot: all well.
    for shown in (5, 3, kept.generation, kept.generation + 1):
        assert told(kept, Shown(shown, HERE)) in {Verdict.CURRENT, Verdict.ROLLED_BACK}


def test_a_clone_that_spoke_first_gives_way_to_the_first_computer() -> None:
    moved = acknowledged(KEPT, Shown(10, THERE))
    assert (moved.hardware, moved.former) == (THERE, HERE)
    verdict, kept = judge(moved, Shown(9, HERE), linked=True, now=NOW)
    assert verdict is Verdict.RETURNED
    assert told(kept, Shown(10, THERE)) is Verdict.CLONE
    assert told(kept, Shown(11, THERE)) is Verdict.CLONE
    # Its answer may be lost, any number of times.
    verdict, again = judge(kept, Shown(9, HERE), linked=False, now=NOW)
    assert verdict is Verdict.ROLLED_BACK
    assert told(again, Shown(again.generation, HERE)) is Verdict.CURRENT


def test_a_holder_who_does_not_acknowledge_takes_no_place() -> None:
    verdict, kept = judge(KEPT, Shown(9, THERE), linked=False, now=NOW)
    assert (verdict, kept.hardware) == (Verdict.CURRENT, HERE)


@pytest.mark.parametrize("older", [False, True])
def test_an_operator_decides_between_two_holders(older: bool) -> None:
    parked = replace(KEPT, contested=6)
    kept = approved(parked, older=older)
    machine, clone = (6, 9) if older else (9, 6)
    assert told(kept, Shown(clone, HERE)) is Verdict.CLONE
    if older:
        # The one that is left behind may have got a token that it did not acknowledge.
        assert told(kept, Shown(10, HERE)) is Verdict.CLONE
    # A snapshot of the machine from before all this is no copy.
    assert told(kept, Shown(3, HERE)) is Verdict.ROLLED_BACK
    verdict, after = judge(kept, Shown(machine, HERE), linked=False, now=NOW)
    assert verdict in {Verdict.CURRENT, Verdict.ROLLED_BACK}
    assert told(after, Shown(after.generation + 1, HERE)) is Verdict.CURRENT
    assert told(after, Shown(clone, HERE)) is Verdict.CLONE


def computer(system: Path, **files: str) -> bytes:
    for name, text in files.items():
        path = system / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return hardware(system)


def test_hardware_is_told_by_the_board_and_else_by_its_adapters(tmp_path: Path) -> None:
    nic = {"class__net__eth0__address": "52:54:00:12:34:56\n", "class__net__eth0__device__x": ""}
    by_adapter = computer(tmp_path / "a", **nic)
    assert len(by_adapter) == 32
    assert by_adapter == computer(tmp_path / "b", **nic, class__dmi__id__product_uuid="None\n")
    board = {"class__dmi__id__product_uuid": "4c4c4544-0042-3510-8052-b7c04f4e3532\n"}
    assert computer(tmp_path / "c", **board) == computer(tmp_path / "d", **board, **nic)
    assert computer(tmp_path / "c", **board) != by_adapter


def test_what_tells_nothing_is_no_hardware(tmp_path: Path) -> None:
    assert hardware(tmp_path / "nothing") == b""
    assert (
        computer(
            tmp_path / "a",
            class__dmi__id__product_uuid="00000000-0000-0000-0000-000000000000",
            class__dmi__id__board_serial="Default string",
            class__net__docker0__address="02:42:ac:11:00:02",
        )
        == b""
    )


def test_the_awaited_holder_on_the_hardware_of_before_returns_and_is_no_copy() -> None:
    kept = Kept(generation=20, hardware=THERE, former=HERE, awaited=5, settled=9)
    assert told(kept, Shown(5, HERE)) is Verdict.RETURNED
    assert told(kept, Shown(6, HERE)) is Verdict.CLONE
    assert told(kept, Shown(9, HERE)) is Verdict.CLONE
    assert told(kept, Shown(10, HERE)) is Verdict.RETURNED
