"""What a restore has written so far, and the file that it is writing."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.backup.restore.direct import DirectFile
from agent.backup.skipped import SkippedList
from protocol.errors import Code, SteadError
from protocol.vault.entry import Entry


class TargetFullError(SteadError):
    """There is no room left where files are restored to."""

    code = Code.STORE_FULL


@dataclass(slots=True)
class Done:
    """What was restored. `same` were there already; `warnings` are not quite as they were."""

    files: int = 0
    bytes: int = 0
    others: int = 0
    same: int = 0
    failed: SkippedList = field(default_factory=SkippedList)
    warnings: SkippedList = field(default_factory=SkippedList)


@dataclass(slots=True)
class OpenFile:
    """A file that is being written. `is_set`: it was made with its owner and its mode.

    `direct` is set while it is written past the page cache.
    """

    parent: bytes
    entry: Entry
    fd: int
    name: bytes
    is_set: bool = False
    has_holes: bool = False
    is_abandoned: bool = False
    direct: DirectFile | None = None
