"""Decide which restore points the rules keep. Pure: points and rules in, a verdict for each out.

Points count by when the controller received them, which no machine can choose, in the
days of a stated time zone. Forgetting is `controller.vault.forget.keeping`'s job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from protocol.errors import InvalidError

Count = Annotated[int, Meta(ge=0, le=100_000)]
FLOOR: Final = 3
MAX_WITHIN: Final = timedelta(days=100 * 366)


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to keep of a machine's restore points; a point is kept when any rule keeps it.

    `within_s`: everything received so many seconds ago or less. `tags`: everything that
    has one of these. `zone` says when days, weeks, months and years begin. `floor` good
    points are kept whatever the others say.
    """

    last: Count = 0
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0
    yearly: Count = 0
    within_s: Annotated[int, Meta(ge=0, le=int(MAX_WITHIN.total_seconds()))] = 0
    tags: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    zone: str = "UTC"
    floor: Annotated[int, Meta(ge=1, le=1000)] = FLOOR


@dataclass(frozen=True, slots=True)
class Candidate:
    """A restore point that is to be judged. `fault` says why it is not good; empty if it is."""

    id: str
    received_at: datetime
    tags: frozenset[str] = frozenset()
    hold: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a point, and every reason for it."""

    point: str
    received_at: datetime
    is_kept: bool
    reasons: tuple[str, ...]


Bucket = Callable[[datetime], tuple[int, ...]]
# The offset tells the two hours apart that one clock shows twice when summer ends.
_PERIODS: Final[tuple[tuple[str, str, Bucket], ...]] = (
    ("hourly", "hour", lambda at: (*at.timetuple()[:4], _offset_s(at))),
    ("daily", "day", lambda at: at.timetuple()[:3]),
    ("weekly", "week", lambda at: at.isocalendar()[:2]),
    ("monthly", "month", lambda at: at.timetuple()[:2]),
    ("yearly", "year", lambda at: (at.year,)),
)


def parse_zone(name: str) -> tzinfo:
    """The time zone of a name; INVALID when there is none.

    >>> parse_zone("UTC")
    datetime.timezone.utc
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidError(
            f"{name[:80]!r} is not a time zone such as UTC or Europe/Vienna"
        ) from error


def keeps_anything(rules: Rules) -> bool:
    """Whether any rule is given: without one, nothing is ever forgotten.

    >>> keeps_anything(Rules()), keeps_anything(Rules(daily=7))
    (False, True)
    """
    counts = (rules.last, rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly)
    return any(counts) or bool(rules.within_s) or bool(rules.tags)


def plan_forgetting(points: Iterable[Candidate], rules: Rules, *, now: datetime) -> list[Verdict]:
    """A verdict for every point, newest first.

    >>> from datetime import UTC
    >>> days = [Candidate(f"rp_{n}", datetime(2026, 5, n, tzinfo=UTC)) for n in (1, 2, 3)]
    >>> plan = plan_forgetting(days, Rules(last=1, floor=1), now=datetime(2026, 5, 4, tzinfo=UTC))
    >>> [(v.point, v.is_kept, *v.reasons) for v in plan][1:]
    [('rp_2', False, 'no rule keeps it'), ('rp_1', False, 'no rule keeps it')]
    """
    zone = parse_zone(rules.zone)
    ordered = sorted(points, key=lambda point: (point.received_at, point.id), reverse=True)
    reasons: dict[str, list[str]] = {point.id: [] for point in ordered}
    if not keeps_anything(rules):
        for point in ordered:
            reasons[point.id].append("there are no rules")
    if ordered:
        reasons[ordered[0].id].append("the newest: the next one follows it")
    for point in ordered:
        _keep_by_itself(point, rules, now, reasons[point.id])
    # A damaged point takes nobody's place, and counts only where nothing else is there.
    _keep_last(ordered, rules, reasons)
    for name, period, bucket in _PERIODS:
        _keep_period(ordered, getattr(rules, name), period, bucket, zone, reasons)
    _keep_floor(ordered, rules.floor, reasons)
    return [
        Verdict(
            point.id,
            point.received_at,
            bool(reasons[point.id]),
            tuple(reasons[point.id]) or ("no rule keeps it",),
        )
        for point in ordered
    ]


def _keep_by_itself(point: Candidate, rules: Rules, now: datetime, reasons: list[str]) -> None:
    if point.hold:
        reasons.append(f"on hold: {point.hold}")
    if tagged := sorted(point.tags & set(rules.tags)):
        reasons.append(f"tagged {', '.join(tagged)}")
    if point.received_at > now:
        reasons.append("received in the future: is the controller's clock right?")
    elif rules.within_s and now - point.received_at <= timedelta(seconds=rules.within_s):
        reasons.append(f"received within {render_span(rules.within_s)}")


def _keep_last(ordered: Sequence[Candidate], rules: Rules, reasons: dict[str, list[str]]) -> None:
    good = [point for point in ordered if not point.fault] or list(ordered)
    for number, point in enumerate(good[: rules.last], 1):
        reasons[point.id].append(f"last {number} of {rules.last}")


def _keep_period(
    ordered: Sequence[Candidate],
    count: int,
    period: str,
    bucket: Bucket,
    zone: tzinfo,
    reasons: dict[str, list[str]],
) -> None:
    """The latest good point of each of the newest `count` periods that have a good one.

    Of a period among these whose points are all damaged the latest stays too.
    """
    periods = [(bucket(point.received_at.astimezone(zone)), point) for point in ordered]
    good: dict[tuple[int, ...], Candidate] = {}
    for key, point in periods:
        if not point.fault:
            good.setdefault(key, point)
    kept = list(good.values())[:count]
    for number, point in enumerate(kept, 1):
        reasons[point.id].append(f"{period} {number} of {count}")
    since = kept[-1].received_at if kept and len(kept) == count else None
    damaged: dict[tuple[int, ...], Candidate] = {}
    for key, point in periods:
        if key not in good and (since is None or point.received_at > since):
            damaged.setdefault(key, point)
    for point in list(damaged.values())[:count]:
        reasons[point.id].append(f"{period} whose points are all damaged")


def _keep_floor(ordered: Sequence[Candidate], floor: int, reasons: dict[str, list[str]]) -> None:
    """Where fewer good points are kept than the floor says, the newest others stay too."""
    good = [point for point in ordered if not point.fault]
    missing = floor - sum(1 for point in good if reasons[point.id])
    for point in [*good, *(point for point in ordered if point.fault)]:
        if missing > 0 and not reasons[point.id]:
            reasons[point.id].append(f"floor of {floor} good points")
            missing -= 1


def render_span(seconds: int) -> str:
    """A span for people.

    >>> render_span(86_400 * 14), render_span(3600 * 5), render_span(90)
    ('14 d', '5 h', '90 s')
    """
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _offset_s(at: datetime) -> int:
    offset = at.utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0
