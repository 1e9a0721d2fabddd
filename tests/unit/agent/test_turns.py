"""Who may work now, and who waits for whom."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from agent.tasks.execute import AT_ONCE, Turns
from protocol.action import (
    Action,
    CancelOrder,
    CollectInventory,
    ControlPower,
    KillProcess,
    ListProcesses,
    ListServices,
    ReadLog,
    RunProgram,
    TakeSnapshot,
)

HANGS = RunProgram(("sleep", "infinity"))


async def begins(turns: Turns, action: Action) -> bool:
    """Whether an action gets its turn without anything ending."""
    began = asyncio.Event()

    async def take() -> None:
        async with turns.turn(action):
            began.set()

    taking = asyncio.create_task(take())
    for _ in range(10):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return began.is_set()


@pytest.mark.parametrize(
    ("action", "at_once"),
    [
        (HANGS, False),
        (CancelOrder("or_x"), True),
        (CollectInventory(), True),
        (TakeSnapshot(), True),
        (ListServices(), True),
        (ListProcesses(), True),
        (KillProcess(1, "x", "TERM"), True),
        (ReadLog(), True),
        (ReadLog(follow=True), True),
        (ControlPower("reboot"), True),
    ],
)
async def test_what_hangs_can_be_seen_and_ended(action: Action, at_once: bool) -> None:
    turns = Turns()
    async with AsyncExitStack() as stack:
        for _ in range(AT_ONCE):
            await stack.enter_async_context(turns.turn(HANGS))
        assert await begins(turns, action) is at_once
    assert await begins(turns, HANGS)
