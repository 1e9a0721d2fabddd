"""Tell a restore point that looks encrypted or emptied from an ordinary one. Pure.

The controller can read nothing. It sees what every machine signs: how many files there
are, how much was read again, how much of that was new after compression, and, where the
machine could compare with its restore point before, how many files look encrypted that did
not, which appeared, which vanished, and which only got other names. What a machine that
lies about its figures does is not seen here; the floor and the undo period are for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.vault.point import Signs, Totals

LOOKS_BACK: Final = timedelta(days=7)
"""A point is compared with the fullest of so long before it: files that go bit by bit show."""

LEAST_FILES: Final = 50
GONE_SHARE: Final = 0.5
GONE_BYTES: Final = 64 * 1024 * 1024
READ_SHARE: Final = 0.25
READ_BYTES: Final = 8 * 1024 * 1024
NEW_SHARE: Final = 0.9

ENCRYPTED_SHARE: Final = 0.5
"""Of the changed files; people seldom change many files at once into what looks like noise."""

ENCRYPTED_OF_ALL: Final = 0.1
"""Of all files: for one that hides among many others that change."""

SUFFIXED_SHARE: Final = 0.2
"""Of the files before. Who adds a suffix to a fifth of all files is rarely a person."""

REPLACED_SHARE: Final = 1 / 3
"""Of the files before, vanished while next to none appeared and much came that looks encrypted."""

FEW: Final = 10


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
    numbers = range(1, len(ordered))
    return next(filter(None, (_alarm_at(ordered, at, released_through) for at in numbers)), None)


def newest_alarm(points: Sequence[Figures], *, released_through: datetime | None) -> Alarm | None:
    """The newest point alone, judged like that; `LOOKS_BACK` of others, and one, are enough."""
    ordered = sorted(points, key=lambda one: one.received_at)
    return _alarm_at(ordered, len(ordered) - 1, released_through) if len(ordered) > 1 else None


def _alarm_at(
    ordered: Sequence[Figures], number: int, released_through: datetime | None
) -> Alarm | None:
    one = ordered[number]
    since = one.received_at - LOOKS_BACK
    if released_through is not None:
        if one.received_at <= released_through:
            return None
        # What went before that was accepted.
        since = max(since, released_through)
    before = [
        other
        for at, other in enumerate(ordered[:number])
        if other.received_at >= since or at == number - 1
    ]
    # What the signs of a point say is new since the one before it: not what was accepted.
    unseen = [
        other.totals.signs
        for other in before
        if other.received_at >= since and other.received_at != released_through
    ]
    earlier = [signs for signs in unseen if isinstance(signs, Signs)]
    reasons = judge(one.totals, [other.totals for other in before], earlier)
    return Alarm(one.point, one.received_at, reasons) if reasons else None


def judge(now: Totals, before: Sequence[Totals], earlier: Sequence[Signs] = ()) -> tuple[str, ...]:
    """What looks wrong about a point after these; empty when nothing does.

    `earlier` are the signs of the days before, which nobody has accepted yet.

    >>> judge(Totals(files=1000, signs=Signs(changed=210, encrypted=200)), [Totals(files=1000)])
    ('200 of 210 changed files look encrypted, and did not before',)

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
    signs = now.signs if isinstance(now.signs, Signs) else None
    if signs is not None:
        reasons += list(_of_signs(signs, now, files)) or _of_sums(_sum([*earlier, signs]), now)
    if (
        now.read_files >= LEAST_FILES
        and _is_rewritten(signs, now, size)
        and now.read_bytes >= READ_BYTES
        and now.read_bytes >= now.bytes * READ_SHARE
        and now.new_bytes >= now.read_bytes * NEW_SHARE
    ):
        reasons.append(
            f"{now.read_bytes * 100 // max(now.bytes, 1)} % of the content was written anew and "
            f"cannot be compressed (to {now.new_bytes * 100 // now.read_bytes} %), as if encrypted"
        )
    return tuple(reasons)


def _looks_encrypted(signs: Signs, files: int) -> bool:
    encrypted = signs.encrypted
    return encrypted >= LEAST_FILES and (
        encrypted >= signs.changed * ENCRYPTED_SHARE or encrypted >= files * ENCRYPTED_OF_ALL
    )


def _of_sums(signs: Signs, now: Totals) -> list[str]:
    """Of what is encrypted bit by bit, so that no restore point alone shows it."""
    if not _looks_encrypted(signs, now.files):
        return []
    return [
        f"{signs.encrypted} files came to look encrypted within {LOOKS_BACK.days} days, "
        "some with each restore point"
    ]


def _sum(some: Sequence[Signs]) -> Signs:
    return Signs(
        changed=sum(one.changed for one in some), encrypted=sum(one.encrypted for one in some)
    )


def _of_signs(signs: Signs, now: Totals, before: int) -> Iterator[str]:
    encrypted, changed = signs.encrypted, signs.changed
    if _looks_encrypted(signs, now.files):
        yield f"{encrypted} of {changed} changed files look encrypted, and did not before"
    if signs.suffixed >= LEAST_FILES and signs.suffixed >= before * SUFFIXED_SHARE:
        yield f"{signs.suffixed} of {before} files got the same suffix"
    if (
        signs.vanished >= LEAST_FILES
        and signs.vanished >= before * REPLACED_SHARE
        and signs.appeared * FEW <= signs.vanished
        and signs.opaque_bytes >= READ_BYTES
    ):
        yield (
            f"{signs.vanished} of {before} files vanished, {signs.appeared} appeared, and "
            f"{signs.opaque_bytes} bytes came that look encrypted"
        )


def _is_rewritten(signs: Signs | None, now: Totals, before: int) -> bool:
    """Whether what was read took the place of something: new pictures beside the old do not.

    Where nothing is known of single files, as after a change of the rules, what came to
    `before` bytes took the place of nothing.
    """
    if signs is None:
        return (now.bytes - before) * 2 <= now.read_bytes
    return (signs.changed + signs.vanished) * 2 >= now.read_files
