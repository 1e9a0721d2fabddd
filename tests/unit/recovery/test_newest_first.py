"""Which of a machine's restore points is the newest, without a controller's clock."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.keys import TenantKey
from protocol.vault.node import Root
from protocol.vault.point import Contents, RestorePoint, Totals
from recovery.points import Recoverable, newest_first

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
ROOT = Root(Reference(ChunkId(b"i" * 32), b"k" * 32, 1000, b"f" * 16), 2, 30, 20, 10**12)
YEARS = timedelta(days=3650)


def point(number: int, begun: datetime, *, missing: bool = False) -> Recoverable:
    """The restore point of that number; it names the one before, unless it is the first."""
    before = b"x" * 32 if missing else bytes([number - 1]) * 32 if number else None
    record = RestorePoint(
        id=f"rp_{number:026d}",
        tenant="tn_" + "0" * 26,
        machine="mc_" + "0" * 26,
        started_at=begun,
        rules=bytes(32),
        detector="walk",
        scope="tenant",
        root=bytes(ROOT.reference.id),
        sealed=(),
        totals=Totals(),
        previous=before,
        agent="",
    )
    secret = TenantKey(bytes(32)).secret
    return Recoverable(record, Contents(ROOT, ()), secret, bytes([number]) * 32)


def numbers(points: list[Recoverable]) -> list[int]:
    return [int(one.id[3:]) for one in newest_first(points)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong", [YEARS, -YEARS])
def test_a_clock_that_was_wrong_once_does_not_change_the_order(seed: int, wrong: timedelta) -> None:
    points = [point(number, NOW + timedelta(days=number)) for number in range(6)]
    points[3] = point(3, NOW + wrong)
    random.Random(seed).shuffle(points)
    assert numbers(points) == [5, 4, 3, 2, 1, 0]


def test_where_nothing_links_them_the_time_decides() -> None:
    points = [point(1, NOW), point(3, NOW - timedelta(days=1), missing=True)]
    assert numbers(points) == [1, 3]


def test_one_that_is_named_by_two_comes_before_both() -> None:
    first, second = point(1, NOW + YEARS), point(2, NOW)
    twin = point(2, NOW - timedelta(days=1))
    twin = Recoverable(twin.point, twin.contents, twin.secret, b"t" * 32)
    found = newest_first([second, twin, first])
    assert [one.hash for one in found] == [second.hash, twin.hash, first.hash]
