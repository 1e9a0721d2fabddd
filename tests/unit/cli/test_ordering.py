from __future__ import annotations

import json
from datetime import timedelta

import pytest
from click import BadParameter

from controller.cli.options.spans import Span
from controller.cli.orders.board import progress_text
from controller.cli.orders.outcomes import exit_code, finish, result_of, say_failures, task_rows
from protocol.errors import InvalidError
from protocol.v1.job_pb2 import Job, RolloutStatus, Task


def job(*states: str, action: str = "run_program") -> Job:
    return Job(action=action, tasks=[Task(state=state, exit_code=1) for state in states])


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (("succeeded", "succeeded"), 0),
        (("succeeded", "failed"), 3),
        (("partial",), 3),
        (("failed", "timed_out"), 1),
        (("expired", "expired"), 5),
        (("rejected",), 4),
        (("cancelled",), 1),
        (("indeterminate",), 1),
        (("expired", "succeeded"), 3),
    ],
)
def test_a_finished_job_comes_to_one_exit_code(states: tuple[str, ...], code: int) -> None:
    assert exit_code(job(*states)) == code


@pytest.mark.parametrize("terminal", [True, False])
def test_of_many_machines_those_are_shown_on_which_it_did_not_succeed(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    many = [Task(machine_name=f"m{number:02}", state="succeeded") for number in range(50)]
    bad = [Task(machine_name="x1", state="failed"), Task(machine_name="x2", state="waiting")]
    halted = RolloutStatus(phase="halted", reason="1 of 52 failed, 0 may: x1", batch=1, batches=2)
    ended = Job(job_id="or_1", tasks=[*many, *bad], rollout=halted)
    assert finish(ended, "table") == 3
    out, err = capsys.readouterr()
    assert [name in out for name in ("m07", "x1", "x2")] == [not terminal, True, True]
    assert ("it succeeded on 50 more" in err) is terminal
    # Last, where the window ends.
    assert err.splitlines()[-1].startswith("Halted in batch 1 of 2: 1 of 52 failed")
    assert "1 of 52 machines have not got the order" in err
    assert finish(ended, "json") == 3
    assert len(json.loads(capsys.readouterr().out)) == 52
    assert finish(Job(tasks=many), "table") == 0
    assert ("it succeeded on all 50 machines" in capsys.readouterr().err) is terminal


def test_only_programs_have_an_exit_code() -> None:
    assert task_rows(job("failed"))[0]["exit_code"] == 1
    assert task_rows(job("failed", action="run_backup"))[0]["exit_code"] is None


def test_who_is_refused_by_an_older_agent_learns_which_side_to_upgrade(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = Task(machine_name="m", state="rejected", code="unknown_field", message="upgrade this")
    say_failures(Job(tasks=[old]))
    assert "m: rejected: upgrade this (its agent is older" in capsys.readouterr().err


def test_a_result_that_is_no_object_is_refused() -> None:
    assert result_of(Task()) == {}
    for hostile in (b"[1]", b"no JSON", b"[" * 100_000, b"\xff"):
        with pytest.raises(InvalidError):
            result_of(Task(result=hostile))


def test_spans_of_time_are_read() -> None:
    assert Span().convert("90s", None, None) == timedelta(seconds=90)
    assert Span().convert("4h", None, None) == timedelta(hours=4)
    assert Span().convert("9999d", None, None) == timedelta(days=9999)
    for bad in ("", "4", "h", "0m", "-1h", "1.5h", "²d", "٣h", "99999999999d", "10000d"):
        with pytest.raises(BadParameter):
            Span().convert(bad, None, None)


def test_progress_reads_with_its_units() -> None:
    said = b'{"phase":"reading","rate":1048576,"eta":8.1,"files":20000,"new_bytes":2048}'
    assert (
        progress_text(said) == "phase reading, 1.0 MiB/s, 8 s left, files 20,000, new bytes 2.0 KiB"
    )
