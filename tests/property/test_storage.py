"""Laws of the controller's storage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from controller.db.micros import from_micros, to_micros
from controller.store.local import LocalStore
from controller.store.store import ObjectStore
from protocol.errors import SteadError
from tests.fakes.memory_store import MemoryStore

MOMENTS = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001
    datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)
KEYS = st.lists(st.sampled_from(["a", "b", "a-b", "a.b", "B0"]), min_size=1, max_size=3).map(
    "/".join
)
BODIES = st.lists(st.binary(max_size=20), max_size=3)


def outcome(act: Callable[[], object]) -> object:
    """What came back, or the class of the error."""
    try:
        return act()
    except SteadError as error:
        return type(error)


class StoresAgree(RuleBasedStateMachine):
    """The directory and the fake answer any sequence of calls alike."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.local = LocalStore.open(Path(self.folder.name))
        self.memory = MemoryStore()

    def same(self, call: Callable[[ObjectStore], object]) -> None:
        assert outcome(lambda: call(self.local)) == outcome(lambda: call(self.memory))

    @rule(key=KEYS, pieces=BODIES)
    def put(self, key: str, pieces: list[bytes]) -> None:
        self.same(lambda store: store.put(key, pieces))

    @rule(key=KEYS, offset=st.integers(-1, 30), length=st.none() | st.integers(-1, 30))
    def get(self, key: str, offset: int, length: int | None) -> None:
        self.same(lambda store: store.get(key, offset, length))

    @rule(key=KEYS)
    def size(self, key: str) -> None:
        self.same(lambda store: (store.exists(key), store.size(key)))

    @rule(prefix=KEYS, cut=st.integers(0, 5))
    def list(self, prefix: str, cut: int) -> None:
        self.same(lambda store: [*store.list(prefix[:cut])])

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.same(lambda store: store.delete(key))

    @rule(key=KEYS)
    def quarantine(self, key: str) -> None:
        self.same(lambda store: store.quarantine(key, "why"))

    def teardown(self) -> None:
        self.folder.cleanup()


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=40)


@given(MOMENTS)
def test_a_time_survives_the_database_to_the_microsecond(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment.astimezone(UTC)


@given(MOMENTS, st.integers(1, 10**12))
def test_times_order_as_their_numbers_do(moment: datetime, micros: int) -> None:
    assert (
        to_micros(moment.astimezone(UTC) + timedelta(microseconds=micros))
        == to_micros(moment) + micros
    )


def test_a_time_without_a_zone_has_no_number() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        to_micros(datetime(2026, 5, 1))  # noqa: DTZ001
