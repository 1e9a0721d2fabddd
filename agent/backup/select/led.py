"""Say where the symbolic links lead that a backup set names, or that it leads through."""

from __future__ import annotations

import os
from collections.abc import Iterable

from agent.backup.skipped import shown
from agent.watch.mounts import is_below


def reason_through(start: bytes, path: bytes) -> str:
    """Why what lies behind a link is not backed up. `start` counts as the top."""
    return f"leads through a symbolic link to {shown(_real(start, path))}; name that"


def reason_of_link(start: bytes, path: bytes, paths: Iterable[bytes]) -> str | None:
    """Why a named link may not be all that was meant; None where what it leads to is among
    `paths`, or is not there.
    """
    real = _real(start, path)
    below = real.removeprefix(start.rstrip(b"/") + b"/")
    if not os.path.lexists(real) or any(is_below(below, one) for one in paths):
        return None
    return f"a symbolic link; what it leads to is not backed up: name {shown(real)}"


def _real(start: bytes, path: bytes) -> bytes:
    return os.path.realpath(os.path.join(start, path))  # noqa: PTH118 - raw bytes
