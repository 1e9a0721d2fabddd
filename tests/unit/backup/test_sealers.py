"""Sealing in another process gives what sealing here gives, and its end is noticed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.cut.sealers import BLOCK_BYTES, BLOCKS, Sealers, SealersGoneError
from agent.backup.cut.sealing import Sealing, Ticket
from protocol.errors import UnavailableError
from protocol.vault.chunk import Kind, Opener, Reference, inspect
from tests.unit.backup.machine import TENANT_KEY, Machine

SECRET = TENANT_KEY.secret


@pytest.fixture(params=[False, True], ids=["threads", "forked"])
def sealers(request: pytest.FixtureRequest) -> Iterator[Sealers]:
    with Sealers(SECRET, forked=request.param) as made:
        yield made


def contents() -> list[bytes]:
    """Text that shrinks, noise that does not, and lengths at the edges."""
    source = random.Random(5)
    return [
        b"x",
        source.randbytes(15),
        b"word " * 50_000,
        source.randbytes(300_000),
        b"abc" * 1_000 + source.randbytes(1_000),
    ] * 6


def seal_all(sealers: Sealers, pieces: list[bytes]) -> dict[bytes, tuple[Reference, bytes]]:
    """Seal pieces side by side in blocks; by their plain content."""
    given: dict[bytes, bytes] = {}
    tickets: list[tuple[bytes, Ticket]] = []
    with Sealing(SECRET, sealers, lambda one, stored: given.update({one.id: stored})) as sealing:
        block, place = sealing.block(), 0
        for piece in pieces:
            if place + len(piece) > BLOCK_BYTES:
                sealing.let_go(block)
                block, place = sealing.block(), 0
            block.view[place : place + len(piece)] = piece
            tickets.append((piece, sealing.submit(block, place, place + len(piece))))
            place += len(piece)
        sealing.let_go(block)
        references = [(piece, sealing.wait(ticket)) for piece, ticket in tickets]
    return {piece: (one, given[one.id]) for piece, one in references}


def test_what_is_sealed_opens_to_what_was_submitted(sealers: Sealers) -> None:
    opener = Opener(SECRET)
    for piece, (reference, stored) in seal_all(sealers, contents()).items():
        assert opener.open(stored, reference) == piece


def test_sealers_serve_one_sealing_after_another(sealers: Sealers) -> None:
    assert seal_all(sealers, contents()) == seal_all(sealers, contents())


def test_a_known_chunk_is_not_sealed_again(sealers: Sealers) -> None:
    given: list[Reference] = []
    with Sealing(SECRET, sealers, lambda one, _: given.append(one)) as sealing:
        block = sealing.block()
        block.view[:4] = b"once"
        first = sealing.wait(sealing.submit(block, 0, 4))
        block.view[10:14] = b"once"
        again = sealing.submit(block, 10, 14, {first.fingerprint: first})
        sealing.let_go(block)
        assert sealing.wait(again) is first
    assert given == [first]


def test_what_a_chunk_is_given_to_fails_and_everybody_who_waits_hears_it(sealers: Sealers) -> None:
    def refuse(_one: Reference, _stored: bytes) -> None:
        raise UnavailableError("no way")

    with Sealing(SECRET, sealers, refuse) as sealing:
        block = sealing.block()
        ticket = sealing.submit(block, 0, 100)
        with pytest.raises(UnavailableError, match="no way"):
            sealing.wait(ticket)
        with pytest.raises(UnavailableError, match="no way"):
            sealing.block()
    # The next attempt finds every block free.
    assert seal_all(sealers, [b"again"] * (BLOCKS + 1))


def children() -> set[int]:
    me = os.getpid()
    return set(map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split()))


def until_gone(sealing: Sealing, child: int) -> None:
    os.kill(child, signal.SIGKILL)
    while True:
        block = sealing.block()
        ticket = sealing.submit(block, 0, BLOCK_BYTES // 8)
        sealing.let_go(block)
        sealing.wait(ticket)


def test_sealers_that_are_killed_are_missed_at_once() -> None:
    before = children()
    with Sealers(SECRET, forked=True) as sealers:
        (child,) = children() - before
        with (
            Sealing(SECRET, sealers, lambda *_: None) as sealing,
            pytest.raises(SealersGoneError, match="was ended"),
        ):
            until_gone(sealing, child)
    assert children() == before


def test_a_backup_with_sealers_of_another_process_is_the_same_backup(tmp_path: Path) -> None:
    source = random.Random(3)
    one, other = Machine(tmp_path / "one"), Machine(tmp_path / "other")
    for machine in (one, other):
        (machine.files / "big").write_bytes(random.Random(1).randbytes(3_000_000))
    for number in range(300):
        content = source.randbytes(source.randrange(9_000))
        for machine in (one, other):
            (machine.files / f"small{number}").write_bytes(content)
            os.utime(machine.files / f"small{number}", (5, 5))
    with Sealers(SECRET, forked=True) as sealers:
        forked = one.back_up(sealers=sealers)
    threads = other.back_up()
    assert forked.root.bytes == threads.root.bytes
    data = [
        {identity for identity, chunk in chunks.items() if inspect(chunk).kind is Kind.DATA}
        for chunks in (one.vault.chunks, other.vault.chunks)
    ]
    assert data[0] == data[1] != set()
    target, done = one.restore(forked.root)
    assert done.failed.count == 0
    assert (target / "big").read_bytes() == (one.files / "big").read_bytes()
