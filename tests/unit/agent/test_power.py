"""Restarts: who is told, what the system is called with, and what the next agent makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.actions.action import Workplace
from agent.actions.power import MOST_DELAY_S, STILL_UP_S, calls, carry_out
from agent.config import AgentHome
from agent.host.boot import boot_id
from agent.host.process import Finished, ProgramError
from agent.power.machine import SystemPower, act_argv, checked_notice
from agent.power.record import (
    Phase,
    Record,
    keep_record,
    load_record,
    outcome_after,
    remove_records,
)
from protocol.action import ControlPower
from protocol.errors import Code, SteadError
from protocol.ids import MachineId, TaskId, TenantId, make_id
from protocol.outcome import OutcomeState

TASK = TaskId(make_id("ts", at_ms=1, random=bytes(10)))
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class FakePower:
    """Writes down what it was asked, in order, and what was durable by then."""

    def __init__(self, home: AgentHome) -> None:
        self._home = home
        self.events: list[Any] = []
        self.deaf = False
        self.notice = ""

    def tell(self, text: str) -> None:
        if self.deaf:
            raise ProgramError("wall is not there")
        self.events.append(text)

    def act(self, verb: str, notice: str) -> None:
        self.notice = notice
        record = load_record(self._home, TASK)
        assert record is not None
        self.events.append((verb, record.phase))

    def wait(self, seconds: float) -> None:
        self.events.append(seconds)


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path / "agent")


def place(home: AgentHome, progress: Callable[[Any], None] = lambda _: None) -> Workplace:
    def channel() -> Any:
        raise AssertionError("nothing is asked of the controller")

    return Workplace(
        home=home,
        tenant=TenantId("tn"),
        machine=MachineId("mc"),
        task=TASK,
        channel=channel,
        progress=progress,
    )


def test_people_are_told_in_time_and_the_system_last(home: AgentHome) -> None:
    power = FakePower(home)
    ended = carry_out(ControlPower("reboot", "Updates", 600), place(home), power, power.wait)
    assert power.events == [
        "Updates\nThis machine restarts in 10 min.",
        540,
        "Updates\nThis machine restarts in 1 min.",
        60,
        ("reboot", Phase.ORDERED),
        STILL_UP_S,
    ]
    # It is still there to say so: then it was not restarted.
    assert (ended.state, ended.code) == (OutcomeState.FAILED, Code.PRECONDITION)


def test_it_waits_for_its_time_even_when_nobody_can_be_told(home: AgentHome) -> None:
    said: list[Any] = []
    power = FakePower(home)
    power.deaf = True
    carry_out(ControlPower("shutdown", "", 30), place(home, said.append), power, power.wait)
    assert power.events == [30, ("shutdown", Phase.ORDERED), STILL_UP_S]
    assert {"nobody_told": "wall is not there"} in said


def test_a_cancel_ends_it_until_the_system_is_told(home: AgentHome) -> None:
    class CancelledError(Exception):
        pass

    def end() -> None:
        raise CancelledError

    for moment, expected in ((0, True), (2, False)):
        waits: list[float] = []
        here = place(home)

        def wait(seconds: float, here: Workplace = here, waits: list[float] = waits) -> None:
            waits.append(seconds)
            if len(waits) > moment:  # noqa: B023 - it is called within the round
                here.control.cancel(end)

        power = FakePower(home)
        action = ControlPower("reboot", "", 300)
        if expected:
            with pytest.raises(CancelledError):
                carry_out(action, here, power, wait)
            assert not any(isinstance(event, tuple) for event in power.events)
        else:
            carry_out(action, here, power, wait)
            assert ("reboot", Phase.ORDERED) in power.events


@pytest.mark.parametrize(
    "action",
    [
        ControlPower("halt"),
        ControlPower("-r"),
        ControlPower("reboot", delay_s=MOST_DELAY_S + 1),
        ControlPower("reboot", "x" * 1001),
    ],
)
def test_what_cannot_be_ordered_is_refused_before_anybody_is_told(
    home: AgentHome, action: ControlPower
) -> None:
    power = FakePower(home)
    with pytest.raises(SteadError) as caught:
        carry_out(action, place(home), power, power.wait)
    assert caught.value.code is Code.INVALID
    assert power.events == []


WINDOWS = ("/f", "/t", "30", "/d", "p:4:1", "/c")
MSG = ("msg.exe", "*", "/TIME:60", "Stead: /A It is time")


@pytest.mark.parametrize(
    ("system", "verb", "argv", "tell"),
    [
        ("linux", "reboot", ("shutdown", "-r", "now"), ("wall",)),
        ("linux", "shutdown", ("shutdown", "-h", "-P", "now"), ("wall",)),
        ("darwin", "reboot", ("shutdown", "-r", "now", "/A It is time"), ("wall",)),
        ("darwin", "shutdown", ("shutdown", "-h", "now", "/A It is time"), ("wall",)),
        ("win32", "reboot", ("shutdown.exe", "/r", *WINDOWS, "/A It is time"), MSG),
        ("win32", "shutdown", ("shutdown.exe", "/s", *WINDOWS, "/A It is time"), MSG),
    ],
)
def test_each_system_is_called_to_the_letter(
    system: str, verb: str, argv: tuple[str, ...], tell: tuple[str, ...]
) -> None:
    called: list[tuple[tuple[str, ...], bytes]] = []

    def run(*words: str, stdin: bytes = b"", **_: Any) -> Finished:
        called.append((words, stdin))
        return Finished(words, 0, b"", b"")

    notice = "/A It\nis time"
    power = SystemPower(run, system)
    power.tell(notice)
    power.act(verb, notice)
    assert called == [(tell, b"" if system == "win32" else b"/A It\nis time\n"), (argv, b"")]
    with pytest.raises(SteadError):
        power.act("halt", notice)


def test_without_a_notice_there_is_none_and_a_long_one_is_cut_for_windows() -> None:
    assert act_argv("reboot", "", "darwin") == ("shutdown", "-r", "now")
    assert act_argv("reboot", "\n", "win32")[-1] == "Ordered by an administrator."
    assert len(act_argv("reboot", "x" * 1000, "win32")[-1]) == 512


def test_the_system_is_given_the_notice(home: AgentHome) -> None:
    power = FakePower(home)
    carry_out(ControlPower("reboot", "Up\x1bdates"), place(home), power, power.wait)
    assert power.notice == "Up?dates"


def test_nothing_of_a_notice_steers_a_terminal() -> None:
    assert checked_notice("Updates\nat\tnoon \x1b[2J\x07é") == "Updates\nat?noon ?[2J?é"


@pytest.mark.parametrize(
    ("phase", "boot", "state"),
    [
        (Phase.ORDERED, "other", OutcomeState.SUCCEEDED),
        (Phase.ORDERED, "same", OutcomeState.FAILED),
        (Phase.WAITING, "other", OutcomeState.FAILED),
        (Phase.WAITING, "same", OutcomeState.FAILED),
    ],
)
@pytest.mark.parametrize("verb", ["reboot", "shutdown"])
def test_only_what_was_told_to_the_system_and_happened_has_succeeded(
    verb: str, phase: Phase, boot: str, state: OutcomeState
) -> None:
    record = Record(verb, "same", phase)
    outcome = outcome_after(TASK, record, boot=boot, started_at=NOON, now=NOON)
    assert outcome.state is state
    assert outcome.message
    assert (outcome.started_at, outcome.ended_at) == (NOON, NOON)


def test_records_are_kept_and_removed_and_a_damaged_one_is_none(home: AgentHome) -> None:
    remove_records(home)
    assert load_record(home, TASK) is None
    record = Record("reboot", boot_id(), Phase.WAITING)
    keep_record(home, TASK, record)
    assert load_record(home, TASK) == record
    (home.power / TASK).write_bytes(b"{")
    assert load_record(home, TASK) is None
    remove_records(home)
    assert list(home.power.iterdir()) == []


def test_a_boot_has_a_name(tmp_path: Path) -> None:
    assert boot_id() == boot_id()
    assert boot_id(tmp_path / "none").isdecimal()


@pytest.mark.parametrize("delay", [0, 1, 60, 61, 3600])
def test_the_waits_add_up_to_the_delay(home: AgentHome, delay: int) -> None:
    power = FakePower(home)
    carry_out(replace(ControlPower("reboot"), delay_s=delay), place(home), power, power.wait)
    waited = [event for event in power.events if isinstance(event, int)]
    assert sum(waited) == delay + STILL_UP_S
    assert len(calls(delay)) == len(waited) - 1
