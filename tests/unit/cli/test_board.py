from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from controller.cli.orders.board import Board, render_rollout
from controller.cli.orders.outcomes import task_rows
from protocol.codec import to_ms
from protocol.v1.job_pb2 import Job, RolloutStatus, Task
from protocol.v1.link_pb2 import OutputStream, TaskOutput

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
STATES = ("succeeded", "waiting", "failed", "running", "queued")


def fleet(count: int) -> Job:
    tasks = [
        Task(
            task_id=f"ts_{number}",
            machine_name=f"machine-{number:03}.example.com",
            state=STATES[number % len(STATES)],
            message="it did not work\nat all" if STATES[number % len(STATES)] == "failed" else "",
            started_at_ms=to_ms(NOW) - 65_000,
        )
        for number in range(count)
    ]
    return Job(summary="run uname -a", tasks=tasks)


def shown(board: Board, width: int, height: int) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as captured:
        console.print(board.render(NOW, width, height))
    return [line.rstrip() for line in captured.get().rstrip("\n").split("\n")]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 20, 500])
def test_the_board_fits_its_window_and_accounts_for_every_machine(count: int, width: int) -> None:
    board = Board.of(fleet(count))
    board.saw(RolloutStatus(phase="rolling", reason="batch 1 of 3 waits for 2 at work"))
    lines = shown(board, width, 24)
    assert len(lines) <= 24
    assert all(len(line) <= width for line in lines)
    machines = [line for line in lines if line.startswith("machine-")]
    more = lines[-1] if lines[-1].startswith("and ") else ""
    hidden = sum(int(word) for word in more.replace(",", "").split() if word.isdigit())
    assert len(machines) + hidden == count


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_what_machines_say_takes_no_room_from_their_names_and_states(width: int) -> None:
    board = Board.of(Job(summary="run", tasks=[Task(task_id="ts_1", machine_name="web-01")]))
    board.saw(Task(task_id="ts_1", machine_name="web-01", state="running", started_at_ms=1))
    out = OutputStream.OUTPUT_STREAM_STDOUT
    board.saw(TaskOutput(task_id="ts_1", stream=out, data=b"unpacking " * 50))
    line = shown(board, width, 24)[1]
    assert line.startswith("web-01  running")
    assert "unpacking" in line
    assert len(line) <= width


def test_those_at_work_and_those_that_failed_come_first() -> None:
    lines = shown(Board.of(fleet(500)), 100, 24)
    assert lines[0].startswith("run uname -a: 200 of 500 done: 100 running, 100 failed, ")
    assert all("running" in line for line in lines[1:22])
    few = [line.split()[1] for line in shown(Board.of(fleet(10)), 100, 24)[1:]]
    assert (
        few
        == ["running"] * 2 + ["failed"] * 2 + ["queued"] * 2 + ["waiting"] * 2 + ["succeeded"] * 2
    )


def test_a_line_says_the_last_line_that_was_printed() -> None:
    board = Board.of(Job(summary="run", tasks=[Task(task_id="ts_1", machine_name="a")]))
    out = OutputStream.OUTPUT_STREAM_STDOUT

    def printed(data: bytes) -> str:
        board.saw(TaskOutput(task_id="ts_1", stream=out, data=data))
        return board.lines["ts_1"].said

    assert printed(b"one\ntw") == "tw"
    assert printed(b"o\n") == "two"
    assert printed(b"\x1b[2J\x07three") == "\\x1b[2J\\x07three"
    assert len(printed(b"x" * 100_000)) == 500
    board.saw(Task(task_id="ts_1", machine_name="a", state="failed", message="why\nmore"))
    assert board.lines["ts_1"].said == "why"


def test_a_halted_rollout_is_over_once_nothing_is_at_work() -> None:
    board = Board.of(fleet(3))
    halted = RolloutStatus(phase="halted", reason="2 of 9 failed, 1 may: a, b", batch=1, batches=3)
    seen = []
    for state in ("succeeded", "running", "failed"):
        board.saw(halted)
        board.saw(Task(task_id="ts_0", machine_name="a", state=state))
        seen.append(board.is_over)
    assert seen == [True, False, True]
    assert render_rollout(halted, NOW) == "halted in batch 1 of 3: 2 of 9 failed, 1 may: a, b"


def test_a_pause_is_counted_down() -> None:
    soaking = RolloutStatus(
        phase="soaking", reason="batch 1 of 3 is over and soaks", soaked_at_ms=to_ms(NOW) + 75_000
    )
    assert render_rollout(soaking, NOW) == "batch 1 of 3 is over and soaks: 1 min 15 s left"


def test_a_job_is_over_with_its_rollout_and_not_with_its_last_outcome() -> None:
    board = Board.of(fleet(1))
    seen = []
    for phase in ("rolling", "over"):
        board.saw(RolloutStatus(phase=phase, batch=1, batches=1))
        board.saw(Task(task_id="ts_0", machine_name="a", state="succeeded"))
        seen.append(board.is_over)
    assert seen == [False, True]


def test_who_waits_for_a_window_says_so() -> None:
    job = Job(summary="run x", windows=["22:00-04:00"], tasks=[Task(task_id="a", state="offered")])
    board = Board.of(job)
    assert "begins within 22:00-04:00" in board.lines["a"].said
    assert "begins within 22:00-04:00" in task_rows(job)[0]["message"]
    board.saw(Task(task_id="a", state="failed", message="no"))
    assert board.lines["a"].said == "no"
    assert task_rows(Job(tasks=[Task(state="offered")]))[0]["message"] == ""
