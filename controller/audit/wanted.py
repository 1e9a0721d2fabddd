"""Which entries of a log somebody wants to see. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.audit.chain import Entry


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is named must fit; what is empty or None fits all.

    `until` is not included. `actor` is whole or what follows its "/"; `machine` an id.
    """

    since: datetime | None = None
    until: datetime | None = None
    event: str = ""
    actor: str = ""
    machine: str = ""

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted()

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        return not (
            (self.since is not None and entry.at < self.since)
            or (self.until is not None and entry.at >= self.until)
            or (self.event and entry.event != self.event)
            or (self.actor and self.actor not in {entry.actor, entry.actor.partition("/")[2]})
            or (self.machine and not self._concerns(entry))
        )

    def in_words(self) -> dict[str, Any]:
        """What was asked for, for the record."""
        named = {
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "event": self.event,
            "actor": self.actor,
            "machine": self.machine,
        }
        return {name: value for name, value in named.items() if value}

    def _concerns(self, entry: Entry) -> bool:
        return entry.actor == f"machine/{self.machine}" or f'"{self.machine}"' in entry.body
