"""Count what a restore would do, and name the first things that it would change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from agent.backup.restore.present import Change
from agent.backup.skipped import shown
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

LISTED: Final = 200


@dataclass(slots=True)
class Preview:
    """How many things would be created and overwritten, and the `size` of their content.

    `attributes` are directories that are there and would get others: owner, mode, time, or
    attributes and ACLs.
    """

    create: int = 0
    overwrite: int = 0
    attributes: int = 0
    same: int = 0
    size: int = 0
    changes: list[tuple[bytes, Change]] = field(default_factory=list)

    def add(self, parent: bytes, entry: Entry, change: Change) -> None:
        """Count one thing."""
        if change is Change.SAME:
            self.same += entry.mode >> 12 != Kind.DIRECTORY
            return
        self.create += change is Change.CREATE
        self.overwrite += change is Change.OVERWRITE
        self.attributes += change is Change.ATTRIBUTES
        self.size += 0 if change is Change.ATTRIBUTES else entry.size
        if len(self.changes) < LISTED:
            self.changes.append((join(parent, entry.name), change))

    def join(self, other: Preview, before: bytes = b"") -> None:
        """Add what another found; `before` goes before its paths."""
        self.create += other.create
        self.overwrite += other.overwrite
        self.attributes += other.attributes
        self.same += other.same
        self.size += other.size
        room = LISTED - len(self.changes)
        self.changes += [(join(before, path), change) for path, change in other.changes[:room]]

    def as_json(self) -> dict[str, Any]:
        """For a result."""
        return {
            "create": self.create,
            "overwrite": self.overwrite,
            "attributes": self.attributes,
            "same": self.same,
            "bytes": self.size,
            "changes": [{"path": shown(path), "change": change} for path, change in self.changes],
        }

    def __str__(self) -> str:
        folders = f"{self.attributes} folders to give other attributes, " if self.attributes else ""
        return (
            f"{self.create} to create, {self.overwrite} to overwrite, {folders}"
            f"{self.same} the same already"
        )
