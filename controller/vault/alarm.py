"""Tell a restore point that looks encrypted or emptied from an ordinary one. Pure.

The controller can read nothing. It sees what every machine signs: how many files there
are, how much was read again, and how much of that was new after compression. Encrypted
content has all three signs at once: much was read, hardly any of it was known, and none
of it could be compressed. What a machine that lies about its figures does is not seen
here; the floor and the undo period are for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.vault.point import Totals

LOOKS_BACK: Final = timedelta(days=7)
"""A point is compared with the fullest of so long before it: files that go bit by bit show."""

LEAST_FILES: Final = 50
GONE_SHARE: Final = 0.5
GONE_BYTES: Final = 64 * 1024 * 1024
READ_SHARE: Final = 0.25
READ_BYTES: Final = 8 * 1024 * 1024
NEW_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Figures:
    """What a machine said of one of its restore points."""

    point: str
    received_at: datetime
    totals: Totals


@dataclass(frozen=True, slots=True)
class Alarm:
    """A restore point that looks wrong, and why."""

    point: str
    received_at: datetime
    reasons: tuple[str, ...]


def first_alarm(points: Sequence[Figures], *, released_through: datetime | None) -> Alarm | None:
    """The oldest point that looks wrong and that nobody has looked at yet.

    The first point of a machine has nothing to be compared with. Points up to
    `released_through` were looked at, and count as they are for later ones.
    """
    ordered = sorted(points, key=lambda one: one.received_at)
    for number, one in enumerate(ordered):
        if number == 0 or (released_through is not None and one.received_at <= released_through):
            continue
        since = one.received_at - LOOKS_BACK
        if released_through is not None:
            # What went before that was accepted.
            since = max(since, released_through)
        before = [
            other.totals
            for at, other in enumerate(ordered[:number])
            if other.received_at >= since or at == number - 1
        ]
        if reasons := judge(one.totals, before):
            return Alarm(one.point, one.received_at, reasons)
    return None


def judge(now: Totals, before: Sequence[Totals]) -> tuple[str, ...]:
    """What looks wrong about a point after these; empty when nothing does.

    >>> full = Totals(files=1000, bytes=1 << 30)
    >>> judge(Totals(files=400, bytes=1 << 30), [full])
    ('600 of 1000 files are gone',)
    >>> judge(Totals(files=990, bytes=1 << 30, read_files=20, read_bytes=1 << 20), [full])
    ()
    """
    reasons: list[str] = []
    files = max((one.files for one in before), default=0)
    size = max((one.bytes for one in before), default=0)
    if files >= LEAST_FILES and now.files < files * (1 - GONE_SHARE):
        reasons.append(f"{files - now.files} of {files} files are gone")
    if size >= GONE_BYTES and now.bytes < size * (1 - GONE_SHARE):
        reasons.append(f"{(size - now.bytes) * 100 // size} % of the content is gone")
    if (
        now.read_files >= LEAST_FILES
        and now.read_bytes >= READ_BYTES
        and now.read_bytes >= now.bytes * READ_SHARE
        and now.new_bytes >= now.read_bytes * NEW_SHARE
    ):
        reasons.append(
            f"{now.read_bytes * 100 // max(now.bytes, 1)} % of the content was written anew and "
            f"cannot be compressed (to {now.new_bytes * 100 // now.read_bytes} %), as if encrypted"
        )
    return tuple(reasons)
