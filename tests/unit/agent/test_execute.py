"""A task whose worker ends without a word: what it had begun ends, too."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil

from agent.config import AgentHome
from agent.host.by_psutil import with_mark
from agent.host.process import TASK_VARIABLE
from agent.host.spool import Spool
from agent.tasks.execute import Executor
from protocol.action import RunBackup
from protocol.errors import Code
from protocol.ids import TaskId, make_id
from protocol.outcome import OutcomeState
from protocol.selection import Commands
from tests.fakes.link_server import Realm


async def test_what_a_killed_worker_had_begun_does_not_go_on(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent")
    machine = Realm().furnish(home, "127.0.0.1:1")
    task = TaskId(make_id("ts", at_ms=1, random=os.urandom(10)))
    spool = Spool(tmp_path, task)
    backup = RunBackup((os.fsencode(tmp_path),), commands=Commands(before=("sleep", "600")))
    executor = Executor(home, machine)
    working = asyncio.create_task(
        executor.execute(task, backup, limit=timedelta(minutes=5), spool=spool)
    )

    def family() -> dict[str, psutil.Process]:
        found = {}
        for one in with_mark(TASK_VARIABLE, task):
            if one.has_mark:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(one.pid)
                    found[process.name()] = process
        return found

    async with asyncio.timeout(60):
        while "sleep" not in (begun := family()):
            await asyncio.sleep(0.05)
        os.kill(begun["sleep"].ppid(), signal.SIGKILL)
        outcome = await working
        assert (outcome.state, outcome.code) == (OutcomeState.FAILED, Code.INTERNAL)
        while family():
            await asyncio.sleep(0.05)
    spool.remove()
