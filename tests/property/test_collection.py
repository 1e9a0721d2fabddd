"""Sessions, forgetting and collections in any order, with crashes and a store that fails.

The real vault over a real database; the objects are in memory. A collection is driven
one step at a time, so that whatever a machine may do happens between any two of them.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from controller.db.schema import chunks as chunk_rows
from controller.db.schema import forgotten_points
from controller.vault import index
from controller.vault.check import check
from controller.vault.collect.condemn import Collected, Step, Terms
from controller.vault.forget import forgotten
from controller.vault.scrub.rebuild import rebuild
from controller.vault.upload.sessions import Begun
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId, inspect
from protocol.vault.point import decode_envelope, verify_point
from tests.fakes.failing_store import CALLS, Call, FailingStore, Fault
from tests.fakes.memory_store import MemoryStore
from tests.unit.controller_vault.world import START, Member, World, an_id, data_chunk, tree_chunk

TERMS = Terms(
    undo=timedelta(hours=2),
    grace=timedelta(hours=1),
    young=timedelta(hours=1),
    patience=timedelta(hours=1),
    worth=0.7,
)
CONTENT = [data_chunk(bytes([n]) * 300 + random.Random(n).randbytes(200)) for n in range(12)]
MIDDLE = timedelta(days=6)
REFUSED = (Code.SESSION_LOST, Code.CHUNK_MISSING, Code.PRECONDITION, Code.ALREADY_EXISTS)
FAILED = (Code.STORE_FULL, Code.UNAVAILABLE)
RETRY = frozenset(REFUSED + FAILED)


def only(error: SteadError, expected: Collection[Code]) -> None:
    """An error that nobody planned for ends the test."""
    if error.code not in expected:
        raise error


@dataclass
class Backing:
    """A machine's backup that is under way, as its agent sees it."""

    begun: Begun
    point: str
    chunks: list[tuple[ChunkId, bytes]]
    """Children first; the last one is the root."""
    sure: set[ChunkId] = field(default_factory=set)


class Simulation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(prefix="collection"))
        self.store = FailingStore(MemoryStore())
        self.world = World.make(self.home, self.store, pack_bytes=1500, terms=TERMS)
        # So far from the certificates' beginning and end that no clock leaves them.
        self.world.clock.at = START + MIDDLE
        tenant = self.do(self.world.tenant())
        self.tenant = tenant
        self.machines: list[Member] = [self.do(self.world.machine(tenant)) for _ in range(2)]
        self.backing: dict[int, Backing] = {}
        self.steps: Iterator[Step] | None = None
        self.latest = self.world.clock.at
        # The ledger: every point that was acknowledged, and everything below its root.
        self.kept: dict[str, dict[ChunkId, bytes]] = {}
        self.undone: dict[str, dict[ChunkId, bytes]] = {}

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    # What machines do

    @rule(
        which=st.integers(0, 1),
        leaves=st.lists(
            st.lists(st.integers(0, len(CONTENT) - 1), min_size=1, max_size=3),
            min_size=1,
            max_size=3,
        ),
        deep=st.booleans(),
    )
    def a_backup_begins(self, which: int, leaves: list[list[int]], deep: bool) -> None:
        machine = self.machines[which]
        point = an_id("rp")
        try:
            begun = self.do(self.world.vault.begin(machine.identity, point))
        except SteadError as error:
            only(error, RETRY)
            return
        content = [[CONTENT[n] for n in leaf] for leaf in leaves]
        trees = [tree_chunk(b"leaf", [one for one, _ in leaf]) for leaf in content]
        top = tree_chunk(b"node", [one for one, _ in trees])
        chunks = [chunk for leaf in content for chunk in leaf] + trees + [top]
        if deep:
            chunks.append(tree_chunk(b"root", [top[0]]))
        self.backing[which] = Backing(begun, point, chunks)

    @precondition(lambda self: self.backing)
    @rule(data=st.data(), count=st.integers(1, 4))
    def a_machine_asks(self, data: st.DataObject, count: int) -> None:
        machine, backing = self._some(data)
        wanted = [c for c, _ in backing.chunks if c not in backing.sure][:count]
        if not wanted:
            return
        try:
            held = self.do(self.world.vault.has(machine.identity, backing.begun.session.id, wanted))
        except SteadError as error:
            self._lost(machine, backing, error)
            return
        backing.sure |= {c for c, is_held in zip(wanted, held, strict=True) if is_held}

    @precondition(lambda self: self.backing)
    @rule(data=st.data(), count=st.integers(1, 4))
    def a_machine_sends(self, data: st.DataObject, count: int) -> None:
        """In order, children first, and only what it was not told is held."""
        machine, backing = self._some(data)
        to_send = [(c, s) for c, s in backing.chunks if c not in backing.sure][:count]
        if not to_send:
            return
        try:
            acknowledged = self.do(
                self.world.send(machine, backing.begun, [[s for _, s in to_send]], flush=True)
            )
        except SteadError as error:
            self._lost(machine, backing, error)
            return
        assert acknowledged[-1] == len(to_send)
        backing.sure |= {c for c, _ in to_send}

    @precondition(lambda self: self.backing)
    @rule(data=st.data())
    def a_machine_commits(self, data: st.DataObject) -> None:
        machine, backing = self._some(data)
        root = backing.chunks[-1][0]
        record = self.do(self.world.point(machine, root, backing.begun))
        session = backing.begun.session
        try:
            self.do(self.world.vault.commit(machine.identity, session.id, session.fence, record))
        except SteadError as error:
            self._lost(machine, backing, error)
            return
        # Whoever was told that something is held, or sent it, has a whole restore point.
        self.kept[backing.point] = dict(backing.chunks)
        self._give_up(backing)

    @precondition(lambda self: self.backing)
    @rule(data=st.data())
    def a_machine_comes_back_and_goes_on(self, data: st.DataObject) -> None:
        """It begins again with the same point and believes what it was told before."""
        machine, backing = self._some(data)
        try:
            backing.begun = self.do(self.world.vault.begin(machine.identity, backing.point))
        except SteadError as error:
            self._lost(machine, backing, error)

    def _lost(self, machine: Member, backing: Backing, error: SteadError) -> None:
        """What an agent does: begin again, and after a missing chunk ask for everything."""
        only(error, RETRY)
        if error.code is Code.CHUNK_MISSING:
            backing.sure.clear()
            return
        if error.code is Code.ALREADY_EXISTS:
            self._give_up(backing)
            return
        try:
            backing.begun = self.do(self.world.vault.begin(machine.identity, backing.point))
        except SteadError as again:
            only(again, RETRY)
            self._give_up(backing)

    def _give_up(self, backing: Backing) -> None:
        self.backing = {n: b for n, b in self.backing.items() if b is not backing}

    def _some(self, data: st.DataObject) -> tuple[Member, Backing]:
        which = data.draw(st.sampled_from(sorted(self.backing)))
        return self.machines[which], self.backing[which]

    # What operators do

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def a_point_is_forgotten(self, data: st.DataObject) -> None:
        point = data.draw(st.sampled_from(list(self.kept)))
        act = partial(forgotten.forget, point=point, reason="test", at=self.world.clock.at)
        self.world.db.write_now(act)
        self.undone[point] = self.kept.pop(point)

    @precondition(lambda self: self.undone)
    @rule(data=st.data())
    def a_point_is_had_back(self, data: st.DataObject) -> None:
        point = data.draw(st.sampled_from(list(self.undone)))
        chunks = self.undone.pop(point)
        try:
            self.world.db.write_now(partial(forgotten.bring_back, point=point))
        except SteadError as error:
            only(error, {Code.NOT_FOUND})
            return
        self.kept[point] = chunks

    # What the controller does

    @precondition(lambda self: self.steps is None)
    @rule(dry=st.booleans())
    def a_collection_begins(self, dry: bool) -> None:
        self.steps = self.world.vault.collector.run(self.tenant, Collected(), dry_run=dry)

    @precondition(lambda self: self.steps is not None)
    @rule(count=st.sampled_from([1, 1, 2, 5, 100]))
    def a_collection_goes_on(self, count: int) -> None:
        assert self.steps is not None
        try:
            for _ in range(count):
                if next(self.steps, None) is None:
                    self.steps = None
                    return
        except SteadError as error:
            only(error, {Code.PRECONDITION, *FAILED})
            self.steps = None

    @rule()
    def the_controller_dies(self) -> None:
        """Everything in memory is gone; a collection ends where it was."""
        self.steps = None
        self.do(self.world.restart())

    @rule(minutes=st.sampled_from([1, 20, 61, 125, -30, -200]))
    def the_clock_moves(self, minutes: int) -> None:
        if abs(self.world.clock.at + timedelta(minutes=minutes) - START - MIDDLE) < MIDDLE:
            self.world.clock.advance(minutes=minutes)
            self.latest = max(self.latest, self.world.clock.at)

    @rule(call=st.sampled_from(CALLS), spared=st.integers(0, 3), was_done=st.booleans())
    def the_store_will_fail(self, call: Call, spared: int, was_done: bool) -> None:
        self.store.faults.append(Fault(call, spared, was_done))

    @precondition(lambda self: self.steps is None)
    @rule()
    def the_index_is_rebuilt(self) -> None:
        """As `stead vault rebuild` does it, with the controller stopped."""
        self.the_controller_dies()
        self.store.faults.clear()
        assert not rebuild(self.world.store, self.world.db, now=self.world.clock.at).problems

    # What must hold

    @invariant()
    def no_chunk_that_a_restore_point_reaches_is_dead(self) -> None:
        for chunks in [*self.kept.values(), *self._to_be_had_back()]:
            held = self.world.db.read_now(partial(index.held, tenant=self.tenant, ids=set(chunks)))
            assert held == set(chunks)

    @invariant()
    def what_a_living_tree_names_lives(self) -> None:
        held = self._all_held()
        for identity in held:
            assert held.issuperset(inspect(self._stored(identity)).children)

    def _to_be_had_back(self) -> list[dict[ChunkId, bytes]]:
        found = self.world.db.read_now(
            lambda c: set(c.scalars(select(forgotten_points.c.id)).all())
        )
        return [chunks for point, chunks in self.undone.items() if point in found]

    def _all_held(self) -> set[ChunkId]:
        def act(connection: Any) -> set[ChunkId]:
            ids = [ChunkId(row) for row in connection.scalars(select(chunk_rows.c.id))]
            return index.held(connection, self.tenant, ids)

        return self.world.db.read_now(act)

    def _stored(self, identity: ChunkId) -> bytes:
        if identity not in KNOWN:
            faults, self.store.faults = self.store.faults, []
            KNOWN[identity] = self.do(self.world.read(self.machines[0], [identity]))[0]
            self.store.faults = faults
        return KNOWN[identity]

    def teardown(self) -> None:
        try:
            self.store.faults.clear()
            self._everything_is_collected_in_the_end()
            for chunks in self.kept.values():
                stored = self.do(self.world.read(self.machines[0], list(chunks)))
                assert stored == list(chunks.values())
            self.do(self.world.vault.close())
            assert not check(self.world.store, self.world.db).faults
        finally:
            self.do(self.world.close())
            self.loop.close()
            shutil.rmtree(self.home)

    def _everything_is_collected_in_the_end(self) -> None:
        """Once no session lives and all terms are over, what nobody needs is gone."""
        self.the_controller_dies()
        self.world.clock.at = self.latest
        for _ in range(4):
            self.world.clock.advance(hours=3)
            for _ in self.world.vault.collector.run(self.tenant, Collected()):
                pass
        needed: set[ChunkId] = set()
        waiting = self._roots()
        assert waiting >= {list(chunks)[-1] for chunks in self.kept.values()}
        while waiting:
            one = waiting.pop()
            needed.add(one)
            waiting |= set(inspect(self._stored(one)).children) - needed
        held = self._all_held()
        assert not needed - held
        assert not held - needed
        packs = [key for key, _ in self.store.list(f"{self.tenant}/packs/")]
        assert not packs or needed

    def _roots(self) -> set[ChunkId]:
        """What the stored records name, those of a commit that was cut short included."""
        records = [self.store.get(key) for key, _ in self.store.list(f"{self.tenant}/points/")]
        return {ChunkId(verify_point(decode_envelope(one)).root) for one in records}


KNOWN: dict[ChunkId, bytes] = {}

TestCollection = Simulation.TestCase
TestCollection.settings = settings(
    max_examples=20,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.full
@pytest.mark.timeout(3600)
class TestCollectionAtLength(Simulation.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        max_examples=200,
        stateful_step_count=100,
        suppress_health_check=list(HealthCheck),
    )
