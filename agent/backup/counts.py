"""Count what a backup has met, read and taken over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What a scan has done so far."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    read_files: int = 0
    read_bytes: int = 0
    reused_files: int = 0
    changed_while_read: int = 0
