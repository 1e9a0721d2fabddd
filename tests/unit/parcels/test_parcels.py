"""What the controller keeps of files on their way, for whom, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from controller.parcels.kept import LEAST_BYTES
from controller.parcels.parcels import Parcels
from controller.store.local import LocalStore
from controller.store.store import Piece, StoreFailedError
from protocol.errors import Code, NotFoundError, SteadError
from protocol.ids import TenantId
from protocol.parcel import OPERATOR, SEALED_PIECE_BYTES
from tests.fakes.memory_store import MemoryStore

TENANT = TenantId("tn_00000000000000000000000001")
FOREIGN = TenantId("tn_00000000000000000000000002")
PARCEL = "pc_00000000000000000000000001"
ONE, TWO, THREE = (f"mc_0000000000000000000000000{n}" for n in (1, 2, 3))
PIECE = 100_000
TENANT_BYTES = LEAST_BYTES + 4 * PIECE
BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


class DyingStore(MemoryStore):
    """Does so many writes; the next one and all after it are not done."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes
        self._counting = threading.Lock()

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        self._write()
        return super().put(key, pieces)

    def delete(self, key: str) -> bool:
        self._write()
        return super().delete(key)

    def left(self) -> MemoryStore:
        """What is there for the next one."""
        found = MemoryStore()
        found.objects = self.objects.copy()
        return found

    def _write(self) -> None:
        with self._counting:
            if self._left <= 0:
                raise StoreFailedError("dead")
            self._left -= 1


class MeetingStore(LocalStore):
    """Whose pieces are written when so many have met."""

    def __init__(self, root: Path, parties: int) -> None:
        super().__init__(root)
        LocalStore.open(root)
        self.parties = parties
        self.meeting = threading.Barrier(parties)
        self.begun = threading.Event()

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        if self.parties and ".operator." in key:
            self.begun.set()
            self.meeting.wait(10)
        return super().put(key, pieces)


class Clock:
    def __init__(self) -> None:
        self.at = BEGAN

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "disk"])
def parcels(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Parcels:
    store = MemoryStore() if request.param == "memory" else LocalStore.open(tmp_path / "objects")
    return Parcels(store, clock, tenant_bytes=TENANT_BYTES)


def opened(
    parcels: Parcels, *machines: str, from_machines: bool = False, max_bytes: int = 3 * PIECE
) -> None:
    hour = timedelta(hours=1)
    parcels.open(
        TENANT, PARCEL, machines, from_machines=from_machines, max_bytes=max_bytes, keep=hour
    )


def code_of(act: Callable[[], object]) -> Code:
    with pytest.raises(SteadError) as error:
        act()
    return error.value.code


def test_what_was_sent_is_listed_and_fetched(parcels: Parcels) -> None:
    opened(parcels, ONE, max_bytes=3 * SEALED_PIECE_BYTES)
    for index, sealed in ((0, b"a"), (1, b"b"), (3, b"d")):
        parcels.send(TENANT, PARCEL, OPERATOR, index, sealed)
    hashes = [blake3(one).digest() for one in (b"a", b"b")]
    assert parcels.held(TENANT, PARCEL, OPERATOR) == hashes
    assert parcels.fetch(TENANT, PARCEL, OPERATOR, 3, ONE) == b"d"
    parcels.send(TENANT, PARCEL, OPERATOR, 1, b"B")
    parcels.send(TENANT, PARCEL, OPERATOR, 1, b"B")
    assert parcels.fetch(TENANT, PARCEL, OPERATOR, 1, ONE) == b"B"
    assert code_of(lambda: parcels.fetch(TENANT, PARCEL, OPERATOR, 2, ONE)) is Code.NOT_FOUND


def test_only_those_named_take_part_and_only_one_way(parcels: Parcels) -> None:
    opened(parcels, ONE)
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    assert code_of(lambda: parcels.fetch(TENANT, PARCEL, OPERATOR, 0, TWO)) is Code.NOT_FOUND
    assert code_of(lambda: parcels.fetch(FOREIGN, PARCEL, OPERATOR, 0, ONE)) is Code.NOT_FOUND
    assert code_of(lambda: parcels.send(TENANT, PARCEL, ONE, 0, b"a")) is Code.DENIED
    assert code_of(lambda: parcels.drop(TENANT, PARCEL, TWO)) is Code.NOT_FOUND
    assert code_of(lambda: opened(parcels, ONE, from_machines=True)) is Code.ALREADY_EXISTS


def test_each_machine_sends_its_own(parcels: Parcels) -> None:
    opened(parcels, ONE, TWO, from_machines=True)
    parcels.send(TENANT, PARCEL, ONE, 0, b"one")
    parcels.send(TENANT, PARCEL, TWO, 0, b"two")
    assert parcels.fetch(TENANT, PARCEL, TWO, 0, OPERATOR) == b"two"
    assert code_of(lambda: parcels.send(TENANT, PARCEL, THREE, 0, b"x")) is Code.NOT_FOUND
    assert code_of(lambda: parcels.send(TENANT, PARCEL, OPERATOR, 0, b"x")) is Code.DENIED


def test_it_goes_when_the_last_machine_has_it(parcels: Parcels) -> None:
    opened(parcels, ONE, TWO)
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    parcels.drop(TENANT, PARCEL, ONE)
    assert parcels.fetch(TENANT, PARCEL, OPERATOR, 0, TWO) == b"a"
    # Ordered again: what was taken before does not count.
    opened(parcels, ONE)
    parcels.drop(TENANT, PARCEL, TWO)
    assert parcels.fetch(TENANT, PARCEL, OPERATOR, 0, ONE) == b"a"
    parcels.drop(TENANT, PARCEL, ONE)
    assert code_of(lambda: parcels.held(TENANT, PARCEL, OPERATOR)) is Code.NOT_FOUND
    parcels.drop(TENANT, PARCEL, ONE)


def test_nobody_fills_the_store(parcels: Parcels) -> None:
    def refused(index: int, size: int) -> Code:
        return code_of(lambda: send(index, size))

    def send(index: int, size: int) -> None:
        parcels.send(TENANT, PARCEL, OPERATOR, index, bytes(size))

    opened(parcels, ONE)
    send(0, 2 * PIECE)
    assert refused(1, PIECE + 1) is Code.LIMIT
    # What replaces another counts instead of it.
    send(0, 3 * PIECE)
    opened(parcels, ONE, max_bytes=9 * PIECE)
    send(1, PIECE)
    assert refused(2, 1) is Code.LIMIT
    parcels.drop(TENANT, PARCEL, OPERATOR)
    opened(parcels, ONE)
    send(0, 3 * PIECE)
    # However small: a piece costs more than its bytes.
    assert refused(2, 1) is Code.LIMIT
    for index, size in ((0, 0), (0, SEALED_PIECE_BYTES + 1), (1 << 20, 1)):
        assert refused(index, size) is Code.INVALID


def test_a_piece_that_the_disk_spoilt_is_to_be_sent_again(tmp_path: Path, clock: Clock) -> None:
    parcels = Parcels(LocalStore.open(tmp_path / "objects"), clock)
    opened(parcels, ONE)
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    (path,) = (tmp_path / "objects").rglob("*.0000000.*")
    path.write_bytes(b"b")
    assert code_of(lambda: parcels.fetch(TENANT, PARCEL, OPERATOR, 0, ONE)) is Code.NOT_FOUND
    assert parcels.held(TENANT, PARCEL, OPERATOR) == []
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    assert parcels.fetch(TENANT, PARCEL, OPERATOR, 0, ONE) == b"a"


def test_what_nobody_fetched_in_time_is_removed(parcels: Parcels, clock: Clock) -> None:
    opened(parcels, ONE)
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    assert parcels.sweep() == 0
    clock.at += timedelta(hours=1)
    assert code_of(lambda: parcels.fetch(TENANT, PARCEL, OPERATOR, 0, ONE)) is Code.NOT_FOUND
    assert parcels.sweep() == 1
    assert parcels.sweep() == 0
    opened(parcels, ONE)
    assert parcels.held(TENANT, PARCEL, OPERATOR) == []


def test_a_restart_loses_nothing(tmp_path: Path, clock: Clock) -> None:
    store = LocalStore.open(tmp_path / "objects")
    before = Parcels(store, clock, tenant_bytes=TENANT_BYTES)
    opened(before, ONE, TWO, max_bytes=SEALED_PIECE_BYTES)
    opened(before, THREE)
    before.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    before.send(TENANT, PARCEL, OPERATOR, 1, bytes(3 * PIECE))
    before.drop(TENANT, PARCEL, ONE)
    after = Parcels(store, clock, tenant_bytes=TENANT_BYTES)
    assert len(after.held(TENANT, PARCEL, OPERATOR)) == 2
    assert code_of(lambda: after.send(TENANT, PARCEL, OPERATOR, 0, bytes(2 * PIECE))) is Code.LIMIT
    after.drop(TENANT, PARCEL, TWO)
    assert after.fetch(TENANT, PARCEL, OPERATOR, 0, THREE) == b"a"
    after.drop(TENANT, PARCEL, THREE)
    (left,) = (tmp_path / "objects" / "parcels").iterdir()
    assert list(left.iterdir()) == []


@pytest.mark.parametrize("cut", range(15))
def test_a_controller_that_dies_at_any_write_has_a_parcel_or_none(cut: int, clock: Clock) -> None:
    store = DyingStore(cut)
    dying = Parcels(store, clock, tenant_bytes=TENANT_BYTES)
    acknowledged: dict[int, bytes] = {}
    with suppress(StoreFailedError):
        opened(dying, ONE)
        opened(dying, TWO)
        for index, sealed in ((0, b"a"), (1, b"b"), (0, b"A")):
            acknowledged.pop(index, None)
            dying.send(TENANT, PARCEL, OPERATOR, index, sealed)
            acknowledged[index] = sealed
        dying.drop(TENANT, PARCEL, ONE)
        acknowledged.clear()
        dying.drop(TENANT, PARCEL, TWO)
    left = store.left()
    after = Parcels(left, clock, tenant_bytes=TENANT_BYTES)
    for index, sealed in acknowledged.items():
        assert after.fetch(TENANT, PARCEL, OPERATOR, index, ONE) == sealed
    # It is taken up again, and goes without a trace.
    opened(after, ONE, TWO)
    for index, sealed in ((0, b"A"), (1, b"b")):
        after.send(TENANT, PARCEL, OPERATOR, index, sealed)
        assert after.fetch(TENANT, PARCEL, OPERATOR, index, TWO) == sealed
    clock.at += timedelta(hours=1)
    assert after.sweep() == 1
    assert left.objects == {}


def test_pieces_are_kept_beside_one_another(tmp_path: Path, clock: Clock) -> None:
    parcels = Parcels(MeetingStore(tmp_path / "objects", 4), clock)
    opened(parcels, ONE, max_bytes=8 * SEALED_PIECE_BYTES)
    with ThreadPoolExecutor(4) as pool:
        # None of these is written before all of them are being written.
        sending = [
            pool.submit(parcels.send, TENANT, PARCEL, OPERATOR, index, b"%d" % index)
            for index in range(4)
        ]
        for one in sending:
            one.result()
    assert parcels.held(TENANT, PARCEL, OPERATOR) == [
        blake3(b"%d" % index).digest() for index in range(4)
    ]


def test_what_is_written_while_its_parcel_goes_goes_with_it(tmp_path: Path, clock: Clock) -> None:
    store = MeetingStore(tmp_path / "objects", 2)
    parcels = Parcels(store, clock, tenant_bytes=TENANT_BYTES)
    opened(parcels, ONE)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(parcels.send, TENANT, PARCEL, OPERATOR, 0, bytes(PIECE))
        store.begun.wait(10)
        parcels.drop(TENANT, PARCEL, OPERATOR)
        store.meeting.wait(10)
        assert isinstance(sending.exception(10), NotFoundError)
    assert list(store.list("parcels/")) == []
    # Nothing of it counts any more.
    opened(parcels, ONE, max_bytes=4 * PIECE)
    store.parties = 0
    parcels.send(TENANT, PARCEL, OPERATOR, 0, bytes(4 * PIECE))


@pytest.mark.parametrize("bad", ["", "pc_x", "../" + "0" * 26, "tn_00000000000000000000000001"])
def test_names_that_lead_elsewhere_are_refused(parcels: Parcels, bad: str) -> None:
    opened(parcels, ONE)
    assert code_of(lambda: parcels.held(TENANT, bad, OPERATOR)) is Code.INVALID
    assert code_of(lambda: parcels.held(TENANT, PARCEL, bad)) is Code.INVALID
    assert code_of(lambda: opened(parcels, bad)) is Code.INVALID
