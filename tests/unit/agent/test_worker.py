"""A worker as the agent starts it: it answers, ends at once, and says nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host.process import started
from agent.tasks.worker import encode_request, worker_argv
from protocol.action import Action, CollectInventory, SetBackup
from protocol.ids import MachineId, TaskId, TenantId, make_id

MACHINE = MachineId(make_id("mc", at_ms=1, random=bytes(10)))
TENANT = TenantId(make_id("tn", at_ms=1, random=bytes(10)))
ENDS_WITHIN_S = 0.8
"""From the last word to the end of the process; interpreters that end badly take over 1 s."""
TRIES = 10
"""Of a worker that ends badly none ends soon; of one that ends well, one does on any machine."""


class Worker:
    """One worker's output, with the time of its last word."""

    def __init__(self) -> None:
        self.printed = {1: b"", 2: b""}
        self.answered_at = 0.0

    def keep(self, fd: int, data: bytes) -> None:
        self.printed[fd] += data
        self.answered_at = time.monotonic()


def request(home: Path, action: Action) -> tuple[TaskId, bytes]:
    task = TaskId(make_id("ts", at_ms=1, random=os.urandom(10)))
    return task, encode_request(AgentHome(home), TENANT, MACHINE, task, action)


@pytest.mark.parametrize("action", [SetBackup((b"/etc",)), CollectInventory(("no-such-section",))])
async def test_a_worker_ends_at_once_with_its_answer_and_prints_nothing_else(
    action: Action, tmp_path: Path
) -> None:
    ends = [await end_of_a_worker(action, tmp_path)]
    while ends[-1] >= ENDS_WITHIN_S and len(ends) < TRIES:
        ends.append(await end_of_a_worker(action, tmp_path))
    assert min(ends) < ENDS_WITHIN_S, ends


async def end_of_a_worker(action: Action, home: Path) -> float:
    """How many seconds after its last word it is gone."""
    task, line = request(home, action)
    worker = Worker()
    async with started(worker_argv(), on_output=worker.keep, task=task) as child:
        child.give(line, end=False)  # the agent keeps it open as long as it lives
        async with asyncio.timeout(60):
            code = await child.exited
            ended_at = time.monotonic()
            await child.drained
    assert (code, worker.printed[2]) == (0, b"")
    [answer] = worker.printed[1].splitlines()
    assert json.loads(answer)["result"]["state"] == "failed"
    return ended_at - worker.answered_at
