"""Carry out orders that only have to be kept, and run nothing."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Final

import msgspec

from agent.actions.registry import refuse_elsewhere
from agent.config import AgentHome
from agent.host.zone import local_zone
from agent.link.rehome import keep_rehoming
from agent.tasks.in_force import revoke, take_in, until_of
from agent.tasks.recurring import next_after, timetable
from agent.tasks.secret import change_secret
from agent.tasks.standing import set_backup
from agent.tasks.verify import Verified
from protocol.action import ChangeVaultSecret, Rehome, RevokeStanding, SetBackup, name_of
from protocol.ids import MachineId, OrderId, TaskId
from protocol.order import Order
from protocol.outcome import Outcome, OutcomeState

_KEPT: Final = (SetBackup, ChangeVaultSecret, Rehome, RevokeStanding)


def is_kept(order: Order) -> bool:
    """Whether an order is carried out by keeping it."""
    return order.standing is not None or isinstance(order.action, _KEPT)


def keep(
    home: AgentHome,
    task: TaskId,
    verified: Verified,
    machine: MachineId,
    *,
    now: datetime,
    past: datetime,
) -> Outcome:
    """Keep what an order says; raises `SteadError` when that cannot be.

    `past` has passed whatever the clock says; see `Journal.past`.
    """
    order = verified.order
    refuse_elsewhere(name_of(order.action), sys.platform)
    if order.standing is not None:
        times = timetable(order.standing, machine, local_zone())
        take_in(home, order, verified.envelope, now=now, past=past)
        following = next_after(order.standing, times, runs=0, now=now)
        return _kept(task, {"next_at": following, "ends_at": order.standing.ends_at})
    match order.action:
        case SetBackup() as action:
            return set_backup(home, task, action, verified.envelope, now=now)
        case RevokeStanding(order_id=gone, deliver_by_ms=until):
            was = revoke(home, OrderId(gone), verified.signer, until_of(until, now), past=past)
            return _kept(task, {"was_in_force": was})
        case Rehome(link_address=link, enrollment_address=enrollment):
            keep_rehoming(home, link, enrollment, order.issued_at)
            return _kept(task, {"link_address": link, "enrollment_address": enrollment})
        case _:
            return change_secret(home, task, order, machine)


def _kept(task: TaskId, result: dict[str, object]) -> Outcome:
    return Outcome(task, OutcomeState.SUCCEEDED, result=msgspec.json.encode(result))
