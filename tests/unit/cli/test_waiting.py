from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.cli.orders.outcomes import say_cut
from controller.cli.orders.waiting import unlinked_line
from protocol.codec import to_ms
from protocol.v1.job_pb2 import Job, Task
from protocol.v1.operator_pb2 import Machine

UNTIL = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
SHOWN = f"{UNTIL.astimezone():%Y-%m-%d %H:%M}"


def job(*names: str, state: str = "queued") -> Job:
    tasks = [Task(machine_id=f"mc_{n}", machine_name=n, state=state) for n in names]
    return Job(tasks=tasks, deliver_by_ms=to_ms(UNTIL))


def linked(*names: str) -> list[Machine]:
    return [Machine(machine_id=f"mc_{n}", linked=True) for n in names]


def test_who_is_waited_for_is_named_with_the_time_and_the_way_out() -> None:
    away = [Machine(machine_id="mc_a", linked=False)]
    assert unlinked_line(job("a"), away) == (
        f"a is not linked; waits until {SHOWN}; Ctrl-C ends the watching alone"
    )
    assert unlinked_line(job("a", "b", "c"), linked("b")).startswith("a, c are not linked; wait ")
    assert unlinked_line(job(*"abcdefg"), []).startswith("a, b, c, d, e and 2 more are not")


def test_nothing_is_said_of_machines_that_are_there_or_done() -> None:
    assert unlinked_line(job("a", "b"), linked("a", "b")) == ""
    assert unlinked_line(job("a", state="succeeded"), []) == ""


def test_output_that_was_cut_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    say_cut(Job(tasks=[Task(machine_name="a", output_truncated=True), Task(machine_name="b")]))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a: it printed more than is kept; the rest was cut off\n"
