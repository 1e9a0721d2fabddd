"""After any history of parcels, alone or at once, what counts is what lies in the store."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from controller.parcels.kept import LEAST_BYTES, TOP, parse_name, room_of
from controller.parcels.parcels import Parcels
from controller.store.store import Piece
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.parcel import OPERATOR
from tests.fakes.memory_store import MemoryStore

TENANT = TenantId("tn_00000000000000000000000001")
PARCELS = [f"pc_0000000000000000000000000{n}" for n in range(3)]
PROBE = "pc_00000000000000000000000009"
MACHINES = [f"mc_0000000000000000000000000{n}" for n in range(2)]
CONTENTS = [bytes([n]) * (50_000 * n + 1) for n in range(1, 4)]
ROOM = 12 * LEAST_BYTES
SEED = 20261127
KINDS = 17

Act = Callable[[Parcels], object]


class SlowStore(MemoryStore):
    """Lets others work in the middle of each write."""

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        os.sched_yield()
        made = super().put(key, pieces)
        os.sched_yield()
        return made

    def delete(self, key: str) -> bool:
        os.sched_yield()
        return super().delete(key)


class Clock:
    """Moves on when it is told."""

    def __init__(self) -> None:
        self.at = datetime(2026, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


def opening(parcel: str, machines: list[str], *, from_machines: bool) -> Act:
    return lambda parcels: parcels.open(
        TENANT,
        parcel,
        machines,
        from_machines=from_machines,
        max_bytes=5_000_000,
        keep=timedelta(hours=1),
    )


def acts(parcel: str, machine: str, index: int, content: bytes) -> list[Act]:
    """What can be done with these."""
    return [
        opening(parcel, [machine], from_machines=False),
        opening(parcel, [machine], from_machines=True),
        *[lambda parcels: parcels.send(TENANT, parcel, OPERATOR, index, content)] * 10,
        lambda parcels: parcels.send(TENANT, parcel, machine, index, content),
        lambda parcels: parcels.fetch(TENANT, parcel, OPERATOR, index, machine),
        lambda parcels: parcels.drop(TENANT, parcel, machine),
        lambda parcels: parcels.drop(TENANT, parcel, OPERATOR),
        lambda parcels: parcels.sweep(),
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[Act]:
    one = st.tuples(
        st.sampled_from(PARCELS),
        st.sampled_from(MACHINES),
        st.integers(0, 2),
        st.sampled_from(CONTENTS),
        st.integers(0, KINDS - 1),
    )
    return [acts(*words)[which] for *words, which in draw(st.lists(one, max_size=40))]  # type: ignore[arg-type]


def done(parcels: Parcels, act: Act) -> None:
    with suppress(SteadError):
        act(parcels)


def check(store: MemoryStore, parcels: Parcels, clock: Clock) -> None:
    """The store, whoever works with it, and whoever comes next agree."""
    names = [parse_name(key, len(body)) for key, body in store.objects.items()]
    assert all(name is not None for name in names)
    pieces = [name for name in names if name is not None and name.piece is not None]
    announced = {name.parcel for name in names if name is not None and name.version is not None}
    assert len([n for n in names if n is not None and n.version is not None]) == len(announced)
    assert {name.parcel for name in names if name is not None} == announced
    places = [(name.parcel, name.piece.sender, name.piece.index) for name in pieces if name.piece]
    assert len(places) == len(set(places))
    sizes = [name.piece.size for name in pieces if name.piece]
    used = LEAST_BYTES * len(announced) + sum(map(room_of, sizes))
    assert used <= ROOM
    for knows in (parcels, Parcels(store, clock, tenant_bytes=ROOM)):
        for name in pieces:
            piece = name.piece
            assert piece is not None
            body = store.objects[name.key]
            got = knows.fetch(TENANT, name.parcel, piece.sender, piece.index, OPERATOR)
            assert blake3(got).digest() == blake3(body).digest()
        # So much is counted, to the byte.
        left = ROOM - used - LEAST_BYTES
        if left < LEAST_BYTES:
            continue
        opening(PROBE, MACHINES, from_machines=False)(knows)
        with pytest.raises(SteadError) as error:
            knows.send(TENANT, PROBE, OPERATOR, 0, bytes(left + 1))
        assert error.value.code is Code.LIMIT
        knows.send(TENANT, PROBE, OPERATOR, 0, bytes(left))
        knows.drop(TENANT, PROBE, OPERATOR)
    assert not [key for key in store.objects if PROBE in key]
    assert all(key.startswith(TOP) for key in store.objects)


@given(histories())
def test_after_any_history_store_and_memory_agree(history: list[Act]) -> None:
    store, clock = MemoryStore(), Clock()
    parcels = Parcels(store, clock, tenant_bytes=ROOM)
    for act in history:
        done(parcels, act)
    check(store, parcels, clock)


@pytest.mark.parametrize("number", range(10))
def test_after_any_history_at_once_store_and_memory_agree(number: int) -> None:
    chance = random.Random(SEED + number)
    store, clock = SlowStore(), Clock()
    parcels = Parcels(store, clock, tenant_bytes=ROOM)
    history = [
        acts(
            chance.choice(PARCELS[:2]),
            chance.choice(MACHINES),
            chance.randrange(2),
            chance.choice(CONTENTS),
        )[chance.randrange(KINDS)]
        for _ in range(1000)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda act: done(parcels, act), history))
    check(store, parcels, clock)
