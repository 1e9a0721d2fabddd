"""The limit of what a backup sends: the bucket by itself, and an upload behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backup.send import upload
from agent.backup.send.pace import LOWEST_BYTES_S, Bucket, checked_limit, lower
from agent.backup.send.vault import Batch
from protocol.errors import Code, SteadError
from tests.fakes.memory_vault import MemoryVault
from tests.unit.backup.machine import Machine

STEPS = st.lists(
    st.tuples(
        st.integers(0, 4_000_000),
        st.floats(0, 30, allow_nan=False),
    ),
    min_size=1,
    max_size=40,
)


@given(rate=st.integers(LOWEST_BYTES_S, 1 << 30), steps=STEPS)
def test_no_span_of_time_lets_more_through_than_its_rate_and_a_burst(
    rate: int, steps: list[tuple[int, float]]
) -> None:
    bucket = Bucket(rate)
    now = 0.0
    left: list[tuple[float, int]] = []
    for size, idle in steps:
        now += idle
        now += bucket.take(size, now)
        left.append((now, size))
    for first, (begun, _) in enumerate(left):
        through = 0
        for ended, size in left[first:]:
            through += size
            largest = max(size for _, size in left[first:])
            allowed = rate * (ended - begun) + max(bucket.burst_bytes, largest)
            assert through <= allowed * (1 + 1e-9) + 1


@given(rate=st.integers(LOWEST_BYTES_S, 1 << 30), sizes=st.lists(st.integers(1, 1 << 22)))
def test_whoever_always_has_something_to_send_gets_the_whole_rate(
    rate: int, sizes: list[int]
) -> None:
    bucket = Bucket(rate)
    now = 0.0
    for size in sizes:
        now += bucket.take(size, now)
    assert now <= sum(sizes) / rate * (1 + 1e-9) + 1e-6


def test_a_limit_that_would_starve_a_session_is_refused() -> None:
    with pytest.raises(SteadError, match="too low") as caught:
        checked_limit(LOWEST_BYTES_S - 1)
    assert caught.value.code is Code.INVALID


def test_a_machine_can_lower_what_an_order_says_and_not_raise_it() -> None:
    assert lower(10, 20) == lower(20, 10) == lower(10, 0) == lower(0, 10) == 10
    assert lower(0, 0) == 0


class Timed(MemoryVault):
    """Notes when how many bytes came."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[float, int]] = []

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:
        def noted() -> Iterator[Batch]:
            for batch in batches:
                self.came.append((time.monotonic(), sum(map(len, batch.chunks))))
                yield batch

        return super().put(session, noted())


class NotingBucket(Bucket):
    """Notes from when on each message may leave."""

    let: list[float]

    def take(self, size: int, now: float) -> float:
        wait = super().take(size, now)
        self.let.append(now + wait)
        return wait


def test_a_limited_backup_sends_each_small_message_when_its_bucket_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "Bucket", NotingBucket)
    monkeypatch.setattr(NotingBucket, "let", [], raising=False)
    vault = Timed()
    machine = Machine(tmp_path, vault)
    for number in range(48):
        (machine.files / str(number)).write_bytes(os.urandom(100_000))
    rate = 4_000_000
    report = machine.back_up(limit_upload=rate)
    came = [(at, size) for at, size in vault.came if size]
    assert report.is_complete
    assert sum(size for _, size in came) == report.new_bytes > 4_800_000
    assert len(came) == len(NotingBucket.let) > 5
    assert all(at >= let for (at, _), let in zip(came, NotingBucket.let, strict=True))
    assert max(size for _, size in came) < rate / 2
