"""Collect inventory sections and report what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.host import clock
from agent.inventory.collect import collect
from agent.inventory.section import Envelope
from agent.inventory.sources import sources_at
from agent.link.report import Reported, report
from protocol.action import CollectInventory
from protocol.outcome import OutcomeState


@dataclass(frozen=True, slots=True)
class Taken:
    """A reported inventory; `unavailable` gives the reason for each section it lacks."""

    reported: Reported
    seconds: float
    unavailable: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """What the order's result says of it."""
        return {
            "root": self.reported.root.hex(),
            "changed": list(self.reported.changed),
            "sent_bytes": self.reported.sent_bytes,
            "seconds": round(self.seconds, 3),
            "unavailable": dict(self.unavailable),
        }

    @property
    def message(self) -> str:
        """What is missing, for people. It is no failure: that a machine keeps no record
        of something is a fact, and recorded as one.
        """
        return "; ".join(f"{name}: {reason}" for name, reason in self.unavailable.items())


def take_inventory(
    place: Workplace,
    names: Iterable[str] | None = None,
    *,
    more: Mapping[str, bytes] | None = None,
) -> Taken:
    """Collect sections (all when None), add the bodies in `more`, and report.

    Raises `InvalidError` for a section that there is not, and what `report` raises.
    """
    began, at = clock.monotonic(), clock.now()
    collection = collect(names, sources=sources_at())
    bodies = {name: result.body for name, result in collection.results.items()}
    unavailable = {
        name: msgspec.json.decode(result.body, type=Envelope).reason or ""
        for name, result in collection.results.items()
        if not result.available
    }
    place.progress({"collected": len(bodies), "unavailable": len(unavailable)})
    with place.channel() as channel:
        reported = report(channel, place.home, {**bodies, **(more or {})}, at=at)
    return Taken(reported, clock.monotonic() - began, unavailable)


def execute(action: CollectInventory, place: Workplace) -> ActionResult:
    """Collect the sections that were asked for; the message names those that are not there."""
    taken = take_inventory(place, action.sections or None)
    result = msgspec.json.encode(taken.as_json())
    return ActionResult(OutcomeState.SUCCEEDED, result=result, message=taken.message)
