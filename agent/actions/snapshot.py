"""A picture of the machine for the help desk: inventory, and figures of this moment."""

from __future__ import annotations

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.actions.inventory import take_inventory
from agent.inventory.chosen import live_here
from agent.inventory.live import encode_live
from agent.inventory.sources import sources_at
from protocol.action import TakeSnapshot
from protocol.outcome import OutcomeState


def execute(action: TakeSnapshot, place: Workplace) -> ActionResult:
    """Report the inventory, then look at what changes by the second."""
    del action  # it has nothing to choose
    taken = take_inventory(place)
    figures = live_here(sources_at())
    result = {
        "inventory_root": taken.reported.root.hex(),
        "inventory": taken.as_json(),
        "live": msgspec.Raw(encode_live(figures)),
    }
    encoded = msgspec.json.encode(result)
    return ActionResult(OutcomeState.SUCCEEDED, result=encoded, message=taken.message)
