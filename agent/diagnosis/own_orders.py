"""Say which standing orders are in force on this machine, for whoever looks after it."""

from __future__ import annotations

from typing import Any

from agent.config import AgentHome
from agent.host import clock
from agent.host.zone import local_zone
from agent.link.identity import Credentials
from agent.tasks.believe import load_believed
from agent.tasks.in_force import load_order, orders_in_force, standing_of, verified_order
from agent.tasks.recurring import next_after, timetable
from protocol.errors import SteadError
from protocol.ids import OrderId
from protocol.summary import summary_of


def standing_orders(home: AgentHome, known: Credentials) -> list[dict[str, Any]]:
    """Each standing order: what, how often, until when, by whom; or why it is not run.

    Its number of runs is the journal's to know, so `next_at` leaves `--max-runs` aside.
    """
    return [_one(home, known, order) for order in orders_in_force(home)]


def _one(home: AgentHome, known: Credentials, name: OrderId) -> dict[str, Any]:
    try:
        kept = load_order(home, name)
        verified = verified_order(name, kept, load_believed(home, known))
        standing = standing_of(verified.order)
        times = timetable(standing, known.identity.machine, local_zone())
    except SteadError as error:
        return {"order": name, "refused": str(error)}
    return {
        "order": name,
        "name": standing.name,
        "summary": summary_of(verified.order.action),
        "schedule": standing.schedule,
        "ends_at": standing.ends_at,
        "max_runs": standing.max_runs or None,
        "signer": verified.signer,
        "taken_in_at": kept.taken_in_at,
        "next_at": next_after(standing, times, runs=0, now=clock.now()),
    }
