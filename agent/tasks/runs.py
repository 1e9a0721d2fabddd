"""What the journal knows of the runs of standing orders, beside the entry of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.tasks.entry import Entry
from agent.tasks.untold import to_sum_up
from protocol.codec import from_ms
from protocol.ids import OrderId
from protocol.order import CLOCK_TOLERANCE

KEPT = timedelta(days=1)
"""How long a run is remembered at least, for whoever cancels it."""


@dataclass(slots=True)
class Runs:
    """By standing order: its last run, the last slot that is summed up, and what is untold.

    The last run is the one that was noted last. Untold are runs that have ended and that
    nobody has heard of, with the bytes of their outcomes, oldest first.
    """

    last: dict[OrderId, Entry] = field(default_factory=dict)
    summed_until: dict[OrderId, datetime] = field(default_factory=dict)
    _untold: dict[OrderId, dict[OrderId, int]] = field(default_factory=dict)

    def accepted(self, entry: Entry) -> None:
        """A run was noted, and maybe others were summed up with it."""
        assert entry.run is not None
        order = entry.run.order
        self.last[order] = entry
        if entry.untold is not None:
            until = from_ms(entry.untold.until_ms)
            self.summed_until[order] = max(until, self.summed_until.get(order, until))

    def ended(self, entry: Entry, size: int) -> None:
        """An order has its outcome; nothing is kept of one that is no run."""
        if entry.run is not None:
            self._untold.setdefault(entry.run.order, {})[entry.order] = size

    def heard(self, entry: Entry) -> None:
        """There is nothing left to tell of an order by itself."""
        if entry.run is not None:
            self._untold.get(entry.run.order, {}).pop(entry.order, None)

    def to_sum_up(self, order: OrderId) -> list[OrderId]:
        """Which runs of a standing order are to be summed up now."""
        return to_sum_up(self._untold.get(order, {}))

    def is_over(self, entry: Entry, now: datetime, latest_seen: datetime) -> bool:
        """True for a run that is not the last of its standing order, and cannot come due again.

        The last one says how many there were. The slot of any other is over for good once
        the last one's began before a time that was believed, for nothing is due before that.
        """
        last = None if entry.run is None else self.last.get(entry.run.order)
        if entry.run is None or last is None or last.run is None or last is entry:
            return False
        seen = latest_seen - CLOCK_TOLERANCE
        over = entry.run.slot < last.run.slot <= seen
        summed_over = entry.untold is None or from_ms(entry.untold.until_ms) <= seen
        return over and summed_over and now > entry.run.slot + KEPT
