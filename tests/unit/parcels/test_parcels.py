"""What the controller keeps of files on their way, for whom, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from controller.parcels.parcels import Parcels
from controller.store.local import LocalStore
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.parcel import OPERATOR, SEALED_PIECE_BYTES
from tests.fakes.memory_store import MemoryStore

TENANT = TenantId("tn_00000000000000000000000001")
FOREIGN = TenantId("tn_00000000000000000000000002")
PARCEL = "pc_00000000000000000000000001"
ONE, TWO, THREE = (f"mc_0000000000000000000000000{n}" for n in (1, 2, 3))
BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


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
    return Parcels(store, clock, tenant_bytes=100)


def opened(
    parcels: Parcels, *machines: str, from_machines: bool = False, max_bytes: int = 60
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
    opened(parcels, ONE)
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
    send(0, 40)
    assert refused(1, 21) is Code.LIMIT
    send(0, 60)
    opened(parcels, ONE, max_bytes=1000)
    send(1, 40)
    assert refused(2, 1) is Code.LIMIT
    parcels.drop(TENANT, PARCEL, OPERATOR)
    opened(parcels, ONE)
    send(0, 60)
    for index, size in ((0, 0), (0, SEALED_PIECE_BYTES + 1), (1 << 20, 1)):
        assert refused(index, size) is Code.INVALID


def test_a_piece_that_the_disk_spoilt_is_to_be_sent_again(tmp_path: Path, clock: Clock) -> None:
    parcels = Parcels(LocalStore.open(tmp_path / "objects"), clock)
    opened(parcels, ONE)
    parcels.send(TENANT, PARCEL, OPERATOR, 0, b"a")
    (path,) = (tmp_path / "objects").rglob("0000000.*")
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


@pytest.mark.parametrize("bad", ["", "pc_x", "../" + "0" * 26, "tn_00000000000000000000000001"])
def test_names_that_lead_elsewhere_are_refused(parcels: Parcels, bad: str) -> None:
    opened(parcels, ONE)
    assert code_of(lambda: parcels.held(TENANT, bad, OPERATOR)) is Code.INVALID
    assert code_of(lambda: parcels.held(TENANT, PARCEL, bad)) is Code.INVALID
    assert code_of(lambda: opened(parcels, bad)) is Code.INVALID
