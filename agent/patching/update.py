"""What a package manager has on offer for a machine, as values.

Pure records; which programs are asked is each manager's affair.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """A newer version on offer for an installed package, which a plan can install."""

    name: str
    arch: str
    installed: str
    candidate: str
    origin: str
    """Who publishes it, as the repository's signed metadata says (`Debian`)."""
    suite: str
    """The archive it comes from (`stable-security`)."""
    label: str
    """The label of that archive (`Debian-Security`)."""
    security: bool
    """A security archive offers this version, or one between it and the installed one."""
    download_bytes: int
    source: str
    """The source package, which advisories name."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package that a plan leaves alone, with the reason."""

    name: str
    arch: str
    installed: str
    candidate: str
    """The version on offer; the installed one when there is nothing newer."""
    security: bool
    reason: str


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on offer at one time, ordered by name and architecture.

    `refreshed_at` is when the lists of packages were last renewed, `None` when they
    never were: an empty scan of stale lists proves nothing.
    """

    manager: str
    updates: tuple[Update, ...]
    held: tuple[Held, ...]
    refreshed_at: datetime | None
