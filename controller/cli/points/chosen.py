"""Which restore point is meant by what a person typed. Pure.

latest              the newest
rp_01kb…            the one whose id begins so
2026-11-20          the newest of that day, or the newest before it
2026-11-20 02:00    the newest at or before that time
yesterday  monday   as a day
3d  "3 days ago"    the newest that is as old or older
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from controller.cli.options.moment import parse_moment
from protocol.errors import InvalidError, NotFoundError

LATEST = "latest"
_IS_ID = re.compile(r"rp_[0-9a-z]*\Z")
_IS_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z|today\Z|yesterday\Z|[a-z]+day\Z")
_AGO = re.compile(r"(\d{1,6}) ?(m|min|minute|h|hour|d|day|w|week)s?(?: ago)?\Z")
_SHOWN = 4


class Received(Protocol):
    """What is chosen from."""

    @property
    def id(self) -> str:
        """Of the restore point."""

    @property
    def received_at(self) -> datetime | None:
        """When the controller got it."""


P = TypeVar("P", bound=Received)


def choose(
    points: Sequence[P],
    name: str,
    *,
    machine: str,
    now: datetime,
    local: Callable[[datetime], datetime] = datetime.astimezone,
    listing: str = "",
) -> P:
    """The one of `points`, newest first, that `name` means.

    NOT_FOUND when there is none, INVALID when there are several or `name` means nothing.
    `listing` says what lists them, where `stead backup ls` cannot.
    """
    listing = listing or f"`stead backup ls {machine}` lists them"
    if not points:
        raise NotFoundError(
            f"{machine} has no restore point yet; `stead backup run {machine}` makes one"
        )
    if name == LATEST:
        return points[0]
    word = name.strip().lower()
    if _IS_ID.match(word):
        return _by_id(points, word, machine, listing)
    moment = _moment(word, name, now, local)
    for point in points:
        if point.received_at is not None and point.received_at <= moment:
            return point
    oldest = points[-1]
    since = f"{local(oldest.received_at):%Y-%m-%d %H:%M}" if oldest.received_at else "unknown"
    raise NotFoundError(
        f"{machine} has no restore point as old as {name!r}: the oldest is {oldest.id} of {since}; "
        + listing
    )


def is_day(name: str) -> bool:
    """Whether a whole day is meant.

    >>> is_day("2026-11-20"), is_day("Monday"), is_day("3d")
    (True, True, False)
    """
    return _IS_DAY.match(name.strip().lower()) is not None


def _by_id(points: Sequence[P], start: str, machine: str, listing: str) -> P:
    found = [point for point in points if point.id.startswith(start)]
    exact = [point for point in found if point.id == start]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise NotFoundError(f"{machine} has no restore point {start!r}; {listing}")
    shown = ", ".join(point.id for point in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise InvalidError(f"{start!r} begins the ids of {len(found)} restore points: {shown}{more}")


def _moment(word: str, name: str, now: datetime, local: Callable[[datetime], datetime]) -> datetime:
    ago = _AGO.match(word)
    text = f"{ago[1]}{ago[2][0]}" if ago else name
    try:
        moment = parse_moment(text, now=now, local=local)
    except InvalidError as error:
        raise InvalidError(
            f"{name[:80]!r} is no restore point: write latest, the beginning of an id, or a time "
            "such as 2026-05-01, '2026-05-01 12:00', yesterday, 3d or '3 days ago'"
            + (" that is not in the future" if "future" in str(error) else "")
        ) from None
    return min(now, moment + timedelta(days=1, microseconds=-1)) if is_day(word) else moment
