from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from agent.host.spool import Printed, Spool
from agent.link.outbox import Outbox
from protocol.ids import TaskId, make_id
from protocol.outcome import Outcome, OutcomeState
from protocol.v1 import link_pb2

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def task(number: int) -> TaskId:
    return TaskId(make_id("ts", at_ms=number, random=bytes(10)))


def kinds(outbox: Outbox) -> list[str | None]:
    told: list[str | None] = []
    while (message := outbox.take()) is not None:
        told.append(message.WhichOneof("message"))
    return told


def test_signs_of_life_go_first_and_an_outcome_follows_its_output(tmp_path: Path) -> None:
    outbox, spool = Outbox(), Spool(tmp_path, task(1))
    spool.append(Printed.STDOUT, b"x" * 100_000)
    outbox.started(task(1), NOW, spool)
    outbox.ended(task(1), lambda: Outcome(task(1), OutcomeState.SUCCEEDED))
    outbox.heartbeat(link_pb2.Heartbeat())
    first = kinds(outbox)
    assert first[:2] == ["heartbeat", "task_started"]
    assert first[2:] == ["task_output"] * 4 + ["task_outcome"]
    outbox.begin_anew()
    assert kinds(outbox) == first[1:]
    assert outbox.acknowledged(task(1)) is spool
    outbox.begin_anew()
    assert kinds(outbox) == []
    spool.remove()


def test_tasks_take_turns_with_their_output(tmp_path: Path) -> None:
    outbox = Outbox()
    spools = [Spool(tmp_path, task(number)) for number in (1, 2)]
    for number, spool in enumerate(spools, 1):
        outbox.started(task(number), NOW, spool)
        spool.append(Printed.STDERR, b"x" * 100_000)
    outputs = []
    while (message := outbox.take()) is not None:
        if message.WhichOneof("message") == "task_output":
            outputs.append(message.task_output.task_id)
    assert outputs == [task(1), task(2)] * 4
    for spool in spools:
        spool.remove()


def test_an_outcome_that_is_not_acknowledged_is_told_again_after_a_while(tmp_path: Path) -> None:
    outbox = Outbox()
    outbox.ended(task(1), lambda: Outcome(task(1), OutcomeState.FAILED))
    assert kinds(outbox) == ["task_outcome"]
    outbox.tell_again()
    assert kinds(outbox) == []
    outbox.tell_again()
    assert kinds(outbox) == ["task_outcome"]


def test_a_spool_of_a_killed_agent_is_read_up_to_its_last_whole_piece(tmp_path: Path) -> None:
    spool = Spool(tmp_path, task(1))
    spool.append(Printed.STDOUT, b"whole")
    size = spool.size
    spool.append(Printed.STDOUT, b"cut")
    spool.close()
    path = tmp_path / task(1)
    path.write_bytes(path.read_bytes()[:-1])
    again = Spool(tmp_path, task(1))
    assert again.size == size
    again.append(Printed.STDERR, b"more")
    piece = again.piece_at(size)
    assert piece is not None
    assert piece.data == b"more"
    again.remove()


def test_damaged_output_does_not_keep_an_outcome_waiting(tmp_path: Path) -> None:
    outbox, spool = Outbox(), Spool(tmp_path, task(1))
    outbox.started(task(1), NOW, spool)
    spool.append(Printed.STDOUT, b"first")
    spool.append(Printed.STDOUT, b"second")
    with (tmp_path / task(1)).open("r+b") as file:
        file.seek(5 + len(b"first"))
        file.write(b"\xff")
    outbox.ended(task(1), lambda: Outcome(task(1), OutcomeState.SUCCEEDED))
    assert kinds(outbox) == ["task_started", "task_output", "task_outcome"]
    spool.remove()


def test_a_spool_keeps_its_bound_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, task(1), limit=10)
    spool.append(Printed.STDOUT, b"12345678")
    seen = [spool.truncated]
    spool.append(Printed.STDOUT, b"9abc")
    assert [*seen, spool.truncated] == [False, True]
    kept = b"".join(piece.data for piece in (spool.piece_at(0), spool.piece_at(13)) if piece)
    assert kept == b"123456789a"
    spool.remove()
