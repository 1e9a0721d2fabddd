"""Laws of how an upload is sorted into packs and of how a question is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.vault.errors import ChunkMissingError
from controller.vault.index import Place
from controller.vault.read.reads import plan_ranges, plan_windows
from controller.vault.upload.packing import GrowingPack, Packing
from protocol.vault.chunk import ChunkId, Kind, inspect
from protocol.vault.pack import PackId, read_index
from tests.unit.controller_vault.world import data_chunk, tree_chunk


@dataclass
class Disk:
    """What is durable; the packs that are on their way."""

    held: set[ChunkId] = field(default_factory=set)
    on_the_way: list[GrowingPack] = field(default_factory=list)

    def settle(self, which: int) -> None:
        """Finish a pack the way the writer does: trees wait for all that went before."""
        pack = self.on_the_way[which]
        if pack.kind is Kind.TREE and which > 0:
            return
        content = b"".join(pack.builder.finish()[1])
        for chunk in read_index(content):
            header = inspect(content[chunk.offset : chunk.offset + chunk.length])
            inside = {other.id for other in pack.placed}
            assert self.held.union(inside).issuperset(header.children)
            self.held.add(chunk.id)
        pack.settle()
        self.on_the_way.pop(which)


class Upload(RuleBasedStateMachine):
    """Whatever order chunks come in and packs become durable in."""

    def __init__(self) -> None:
        super().__init__()
        self.packing = Packing(pack_bytes=2_000)
        self.disk = Disk()
        self.sent: list[ChunkId] = []
        self.stored = 0
        self.said = 0

    @rule(sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 900)), max_size=6))
    def data_comes(self, sizes: list[tuple[int, int]]) -> None:
        made = [data_chunk(bytes([seed]) * size) for seed, size in sizes]
        self.packing.absorb([stored for _, stored in made], self.disk.held.intersection)
        self.sent += [identity for identity, _ in made]

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), seed=st.integers(0, 30))
    def a_tree_comes(self, data: st.DataObject, seed: int) -> None:
        children = data.draw(st.lists(st.sampled_from(self.sent), max_size=8))
        identity, stored = tree_chunk(bytes([seed]), children)
        self.packing.absorb([stored], self.disk.held.intersection)
        self.sent.append(identity)

    @rule(seed=st.integers(0, 255))
    def a_tree_comes_before_its_child(self, seed: int) -> None:
        child, _ = data_chunk(b"never sent" + bytes([seed]))
        _, stored = tree_chunk(b"tree", [child])
        with pytest.raises(ChunkMissingError, match=child.hex()):
            self.packing.absorb([stored], self.disk.held.intersection)

    @rule()
    def packs_are_closed(self) -> None:
        self.packing.seal()

    @rule()
    def the_writer_fetches(self) -> None:
        while self.packing.has_sealed:
            self.disk.on_the_way.append(self.packing.take_sealed())

    @precondition(lambda self: self.disk.on_the_way)
    @rule(data=st.data())
    def a_pack_becomes_durable(self, data: st.DataObject) -> None:
        self.disk.settle(data.draw(st.integers(0, len(self.disk.on_the_way) - 1)))

    @invariant()
    def what_is_acknowledged_is_durable(self) -> None:
        durable = self.packing.advance()
        assert self.said <= durable <= len(self.sent)
        assert self.disk.held.issuperset(self.sent[:durable])
        self.said = durable

    def teardown(self) -> None:
        self.packing.seal()
        self.the_writer_fetches()
        while self.disk.on_the_way:
            self.disk.settle(0)
        assert self.packing.advance() == len(self.sent)
        assert self.disk.held == set(self.sent)


TestUpload = Upload.TestCase


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[ChunkId], dict[ChunkId, Place]]:
    places: dict[ChunkId, Place] = {}
    ends = {"a": 0, "b": 0}
    for number in range(draw(st.integers(1, 30))):
        pack = draw(st.sampled_from("ab"))
        offset = ends[pack] + draw(st.sampled_from([32, 32, 70_000]))
        length = draw(st.integers(1, 4_000_000))
        places[ChunkId(bytes([number]) * 32)] = Place(PackId(pack), offset, length, Kind.DATA)
        ends[pack] = offset + length
    return draw(st.lists(st.sampled_from(sorted(places)), max_size=40)), places


@given(questions())
def test_every_chunk_that_is_asked_for_lies_in_exactly_one_range_of_its_window(
    question: tuple[list[ChunkId], dict[ChunkId, Place]],
) -> None:
    asked, places = question
    windows = list(plan_windows(asked, places))
    assert [chunk for window in windows for chunk in window] == asked
    for window in windows:
        ranges = plan_ranges(window, places)
        assert sorted(c for one in ranges for c in one.chunks) == sorted(set(window))
        for one in ranges:
            for chunk in one.chunks:
                place = places[chunk]
                assert place.pack == one.pack
                assert one.offset <= place.offset
                assert place.offset + place.length <= one.offset + one.length
        wanted = sum(places[chunk].length for chunk in set(window))
        assert sum(one.length for one in ranges) <= wanted + 64 * 1024 * len(set(window))
