"""Standing orders: what bounds one, and what names each of its runs. Pure.

An operator signs the order once, with a schedule and an end; each machine carries it out by
itself, once in a slot (`protocol.schedule`). A run is named by the order and its slot alone,
so that machines and controller come to the same name without asking each other, and a run
that comes twice is seen to be the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.action import (
    NAMES,
    Action,
    CollectInventory,
    RunProgram,
    RunScript,
    ScanUpdates,
    TakeSnapshot,
    name_of,
)
from protocol.errors import InvalidError
from protocol.ids import RANDOM_BYTES, OrderId, check_name, make_id
from protocol.moment import LAST_MS, from_ms, to_ms
from protocol.schedule import LONGEST_SPREAD, parse_schedule

LONGEST: Final = timedelta(days=400)
"""From signing to end: what is still wanted after a year is signed anew by somebody."""

MOST_RUNS: Final = (1 << 31) - 1
REPEATING: Final[frozenset[type[Action]]] = frozenset(
    {RunProgram, RunScript, CollectInventory, TakeSnapshot, ScanUpdates}
)
"""Actions that mean the same whenever they are carried out."""

_DOMAIN = b"stead run of a standing order v1\0"


@dataclass(frozen=True, slots=True)
class Standing:
    """The bounds of a standing order; the field names are those of `protocol/v1/order.proto`.

    `max_runs` counts on each machine; 0 is no bound. `spread_s` of 0 is the schedule's own.
    """

    schedule: str
    ends_at_ms: int
    max_runs: int = 0
    spread_s: int = 0
    name: str = ""

    @property
    def ends_at(self) -> datetime:
        """No run begins at this time or later."""
        return from_ms(min(max(self.ends_at_ms, 0), LAST_MS))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a standing order on one machine: its slot's begin, and its number from 1."""

    order: OrderId
    slot: datetime
    number: int


def job_of_run(order: OrderId, slot: datetime) -> OrderId:
    """The id of a run as an order and as a job, which the machines of one slot share."""
    at_ms = to_ms(slot)
    digest = hashlib.sha256(_DOMAIN + f"{order}\0{at_ms}".encode()).digest()
    return OrderId(make_id("or", at_ms=at_ms, random=digest[:RANDOM_BYTES]))


def check_standing(standing: Standing, action: Action, issued_at: datetime) -> None:
    """Raise INVALID for bounds that make no sense, and for an action that cannot be repeated."""
    if type(action) not in REPEATING:
        raise InvalidError(
            f"{name_of(action)} is no standing order; there are: "
            f"{', '.join(sorted(NAMES[kind] for kind in REPEATING))}"
        )
    if parse_schedule(standing.schedule) is None:
        raise InvalidError("a standing order has a schedule")
    if not timedelta() < standing.ends_at - issued_at <= LONGEST:
        raise InvalidError(
            f"a standing order ends after it was signed and within {LONGEST.days} days of that"
        )
    if standing.max_runs > MOST_RUNS or standing.spread_s > LONGEST_SPREAD.total_seconds():
        raise InvalidError(
            f"a standing order has a spread of at most {LONGEST_SPREAD.days} days, and "
            f"at most {MOST_RUNS} runs"
        )
    if standing.name:
        check_name(standing.name, what="standing order's name")
