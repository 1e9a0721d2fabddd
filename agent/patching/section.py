"""The inventory section `updates`: a scan without its times.

Pure. Equal scans give equal bytes, so an unchanged machine sends nothing.
"""

from __future__ import annotations

import msgspec

from agent.patching.update import Held, Scan, Update

NAME = "updates"
SCHEMA = 1


class UpdatesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is on offer for a machine, ordered by name, architecture and version."""

    manager: str
    updates: tuple[Update, ...]
    held: tuple[Held, ...]
    security_count: int
    """Updates and held packages that a security archive offers."""
    download_bytes: int


def updates_section(scan: Scan) -> UpdatesFacts:
    """The facts of the section `updates`."""
    updates = tuple(sorted(scan.updates, key=lambda u: (u.name, u.arch, u.candidate)))
    held = tuple(sorted(scan.held, key=lambda h: (h.name, h.arch, h.candidate)))
    return UpdatesFacts(
        manager=scan.manager,
        updates=updates,
        held=held,
        security_count=sum(u.security for u in updates) + sum(h.security for h in held),
        download_bytes=sum(update.download_bytes for update in updates),
    )
