"""What became of a backup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.backup.counts import Counts
from agent.backup.skipped import SkippedList
from protocol.vault.node import Root


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What became of a backup. `unsound` are files whose held content was not theirs.
    `stream_bytes` are those of all named streams, which the root does not count.

    `unremembered` says why the next backup cannot go on from what this one saw.

    `detector` is `watch`, or `walk` with the reason; `missed` are files whose change no event
    had told.
    """

    point: str
    received_at: datetime
    root: Root
    counts: Counts
    skipped: SkippedList
    unsound: tuple[bytes, ...]
    new_chunks: int
    new_bytes: int
    reused_leaves: int
    lost_links: int
    detector: str
    missed: tuple[bytes, ...] = ()
    stream_bytes: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    unremembered: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing that was asked for is missing."""
        return not self.skipped.missing and not self.unsound
