"""Say changes between two trees as records, and add them up. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.cli.output.entries import text_of, time_of
from protocol.vault.diff import Change
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
SIGNS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}


@dataclass(slots=True)
class Tally:
    """Things and bytes that were added, removed and changed."""

    entries: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNS, 0))
    files: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNS, 0))

    def add(self, kind: str, change: Change) -> None:
        """Count one change. The bytes of a changed file are those of its new content."""
        entry = change.new or change.old
        assert entry is not None
        self.entries[kind] += 1
        if entry.kind is Kind.FILE:
            self.files[kind] += 1
            self.bytes[kind] += entry.size

    def rows(self) -> list[dict[str, Any]]:
        """One record for each kind of change."""
        return [
            {
                "change": kind,
                "entries": self.entries[kind],
                "files": self.files[kind],
                "size_bytes": self.bytes[kind],
            }
            for kind in SIGNS
        ]


def kind_of(change: Change) -> str:
    """What happened to a path."""
    return ADDED if change.old is None else REMOVED if change.new is None else CHANGED


def change_row(change: Change, what: tuple[str, ...]) -> dict[str, Any]:
    """A change as a record."""
    entry = change.new or change.old
    assert entry is not None
    return {
        "change": kind_of(change),
        "path": "/" + text_of(join(change.parent, entry.name)),
        "kind": entry.kind.name.lower(),
        "what": list(what),
        "size_bytes": entry.size if entry.kind is Kind.FILE else None,
        "old": _side(change.old),
        "new": _side(change.new),
    }


def _side(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "kind": entry.kind.name.lower(),
        "mode": f"{entry.mode & 0o7777:04o}",
        "owner": entry.owner.user or str(entry.owner.uid),
        "group": entry.owner.group or str(entry.owner.gid),
        "size_bytes": entry.size if entry.kind is Kind.FILE else None,
        "modified_at": time_of(entry.mtime_ns),
        "target": text_of(entry.target) or None,
    }
