"""When a task begins: in its turn, not too early, within its windows, and not too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from agent.host import clock
from agent.host.zone import local_zone
from agent.tasks.execute import Turns
from protocol.errors import Code, SteadError
from protocol.order import Order
from protocol.window import next_start, parse_windows

LOOK_EVERY_S = 60.0
"""A computer that slept, and a clock that was set, are noticed within this time."""


@asynccontextmanager
async def turn_of(
    turns: Turns, order: Order, latest_seen: Callable[[], datetime]
) -> AsyncIterator[SteadError | None]:
    """Wait until the order may be started, and keep others out as long as it runs.

    EXPIRED is given instead when that time does not come any more. A window that closed
    while the order was in line is no window: it waits for the next one.
    """
    if order.standing is not None:
        # It is only kept, which takes no turn; its windows are for its runs.
        yield _too_late(order, latest_seen())
        return
    while True:
        late = await _until_open(order, latest_seen)
        if late is not None:
            yield late
            return
        async with turns.turn(order.action):
            late, start = _start_of(order, latest_seen())
            if late is None and start > clock.now():
                continue
            yield late
            return


async def _until_open(order: Order, latest_seen: Callable[[], datetime]) -> SteadError | None:
    while True:
        late, start = _start_of(order, latest_seen())
        wait = (start - clock.now()).total_seconds()
        if late is not None or wait <= 0:
            return late
        await asyncio.sleep(min(wait, LOOK_EVERY_S))


def _start_of(order: Order, latest_seen: datetime) -> tuple[SteadError | None, datetime]:
    """When to start the order; why not, when that is too late."""
    now = clock.now()
    if (late := _too_late(order, latest_seen)) is not None:
        return late, now
    start = next_start(
        parse_windows(order.windows),
        at=max(now, order.not_before),
        deliver_by=order.deliver_by,
        zone=local_zone(),
        catch_up=order.catch_up,
    )
    if start is None:
        message = (
            f"none of its windows ({'; '.join(order.windows)}) opens on this machine before "
            f"{order.deliver_by:%Y-%m-%d %H:%M:%S}Z, its last time for a start"
        )
        return SteadError(message, code=Code.EXPIRED), now
    return None, start


def _too_late(order: Order, latest_seen: datetime) -> SteadError | None:
    if max(clock.now(), latest_seen) <= order.deliver_by:
        return None
    message = (
        f"its turn came after {order.deliver_by:%Y-%m-%d %H:%M:%S}Z, its last time for a start"
    )
    return SteadError(message, code=Code.EXPIRED)
