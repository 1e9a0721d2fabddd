"""An agent that is killed while a file is on its way goes on where it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from controller import clock
from controller.parcels.parcels import Parcels
from protocol.action import CancelOrder, GetFile, PutFile
from protocol.ids import OrderId, ParcelId, TenantId
from protocol.parcel import (
    OPERATOR,
    PIECE_BYTES,
    Trailer,
    open_piece,
    open_trailer,
    seal_key,
    seal_piece,
    seal_trailer,
    sealed_bytes,
)
from protocol.v1 import parcel_pb2 as pb
from protocol.v1.parcel_pb2_grpc import ParcelServiceStub
from tests.integration.agent_process import AgentProcess, ended_job, join
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, order_for, submit

if TYPE_CHECKING:
    from protocol.v1.parcel_pb2_grpc import ParcelServiceAsyncStub

KEY = bytes(range(32))
PIECES = 4


class Gate:
    """Lets the first piece of a file through, in one direction, and the others once it is open:
    so what is under way stays so, however slow whoever looks at it is.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
        self._open = threading.Event()
        through = getattr(Parcels, way)

        def passed(
            parcels: Parcels, tenant: TenantId, parcel: str, sender: str, index: int, what: Any
        ) -> Any:
            if index:
                self._open.wait()
            return through(parcels, tenant, parcel, sender, index, what)

        monkeypatch.setattr(Parcels, way, passed)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch, request.param)
    yield made
    made.open()


@dataclass
class World:
    """An installation with one agent that runs, and a parcel that was announced."""

    installation: Installation
    agent: AgentProcess
    parcel: ParcelId
    stub: ParcelServiceAsyncStub

    async def opened(self, *, from_machines: bool) -> None:
        identity = self.agent.identity
        await self.stub.OpenParcel(
            pb.OpenParcelRequest(
                tenant_id=identity.tenant,
                parcel_id=self.parcel,
                machine_ids=[identity.machine],
                from_machines=from_machines,
                max_bytes=sealed_bytes(PIECES * PIECE_BYTES),
                keep_s=3600,
            )
        )

    async def sent(self, content: bytes) -> None:
        """Have the operator's pieces kept."""
        await self.opened(from_machines=False)
        parts = [content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES)]
        pieces = [seal_piece(KEY, self.parcel, OPERATOR, i, part) for i, part in enumerate(parts)]
        trailer = Trailer(len(content), blake3(content).digest())
        pieces.append(seal_trailer(KEY, self.parcel, OPERATOR, trailer))
        for index, sealed in enumerate(pieces):
            await self.stub.SendPiece(
                pb.SendPieceRequest(
                    tenant_id=self.agent.identity.tenant,
                    parcel_id=self.parcel,
                    index=index,
                    sealed=sealed,
                )
            )

    async def ordered(
        self, action: GetFile | PutFile, *, timeout: timedelta = timedelta(minutes=5)
    ) -> str:
        identity = self.agent.identity
        private = X25519PrivateKey.from_private_bytes(self.agent.home.sealing_key.read_bytes())
        sealed = seal_key(
            KEY,
            private.public_key().public_bytes_raw(),
            tenant=identity.tenant,
            machine=identity.machine,
            parcel=self.parcel,
        )
        action = replace(action, parcel_id=self.parcel, sealed_keys={identity.machine: sealed})
        order = replace(
            order_for(identity.tenant, action=action),
            machines=(identity.machine,),
            repeatable=True,
            timeout=timeout,
        )
        return (await submit(self.installation, enveloped(self.installation, order))).job_id

    @property
    def kept(self) -> Path:
        """Where the controller keeps parcels."""
        tenant = self.agent.identity.tenant
        return self.installation.home / "controller" / "objects" / "parcels" / tenant

    def piece(self, sender: str, index: int) -> Path | None:
        """Where the controller keeps a piece; None when it has none."""
        return next(self.kept.glob(f"{self.parcel}.{sender}.{index:07d}.*"), None)


@pytest.fixture
async def world(installation: Installation, tmp_path: Path) -> AsyncIterator[World]:
    agent = AgentProcess(tmp_path / "machine")
    await join(installation, agent)
    stub = ParcelServiceStub(installation.admin())
    yield World(installation, agent, ParcelId(clock.new_id("pc")), stub)
    if agent.alive:
        await agent.stop()


@pytest.mark.parametrize("gate", ["fetch"], indirect=True)
async def test_a_put_goes_on_with_what_lies_beside_its_place(
    world: World, tmp_path: Path, gate: Gate
) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    await world.sent(content)
    target = tmp_path / "there" / "file"
    job = await world.ordered(
        PutFile(
            path=os.fsencode(target),
            size=len(content),
            content_hash=blake3(content).digest(),
            make_directories=True,
        )
    )

    def begun() -> bool | None:
        parts = list(target.parent.glob(".file.*.part"))
        return any(part.stat().st_size >= PIECE_BYTES for part in parts) or None

    await world.agent.until(begun)
    await world.agent.stop(signal.SIGKILL)
    assert not target.exists()
    # Who began anew would ask for it.
    first = world.piece(OPERATOR, 0)
    assert first is not None
    first.unlink()
    gate.open()
    await world.agent.start()
    (task,) = (await ended_job(world.installation, job)).job.tasks
    assert task.state == "succeeded", task.message
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("end", ["cancelled", "timed_out", "failed"])
async def test_a_put_that_is_ended_from_outside_leaves_nothing(
    world: World, tmp_path: Path, end: str
) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    await world.sent(content)
    target = tmp_path / "there" / "file"
    target.parent.mkdir()
    put = PutFile(
        path=os.fsencode(target),
        size=len(content),
        content_hash=blake3(content).digest(),
        # A piece takes two minutes.
        limit_rate=16 * 1024,
    )
    short = timedelta(seconds=10 if end == "timed_out" else 300)
    job = await world.ordered(put, timeout=short)
    (part,) = await world.agent.until(lambda: list(target.parent.iterdir()) or None)
    assert part.name.endswith(".part")
    if end == "cancelled":
        identity = world.agent.identity
        cancel = order_for(identity.tenant, action=CancelOrder(OrderId(job)))
        cancel = replace(cancel, machines=(identity.machine,))
        await submit(world.installation, enveloped(world.installation, cancel))
    if end == "failed":
        os.kill(_holder_of(part), signal.SIGKILL)
    (task,) = (await ended_job(world.installation, job)).job.tasks
    assert task.state == end, task.message
    assert list(target.parent.iterdir()) == []


def _holder_of(path: Path) -> int:
    """The process that has a file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == path:
                return int(link.parts[2])
    raise AssertionError(f"nobody has {path} open")


@pytest.mark.parametrize("gate", ["send"], indirect=True)
async def test_a_get_sends_nothing_twice(world: World, tmp_path: Path, gate: Gate) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    source = tmp_path / "source"
    source.write_bytes(content)
    await world.opened(from_machines=True)
    machine = world.agent.identity.machine
    job = await world.ordered(GetFile(path=os.fsencode(source), max_bytes=len(content)))
    first = await world.agent.until(lambda: world.piece(machine, 0))
    inode = first.stat().st_ino
    await world.agent.stop(signal.SIGKILL)
    gate.open()
    await world.agent.start()
    (task,) = (await ended_job(world.installation, job)).job.tasks
    assert task.state == "succeeded", task.message
    assert first.stat().st_ino == inode
    fetched = [
        (
            await world.stub.FetchPiece(
                pb.FetchPieceRequest(
                    tenant_id=world.agent.identity.tenant,
                    parcel_id=world.parcel,
                    sender_id=machine,
                    index=index,
                )
            )
        ).sealed
        for index in range(PIECES + 1)
    ]
    trailer = open_trailer(KEY, world.parcel, machine, PIECES, fetched.pop())
    assert (trailer.size, trailer.content_hash) == (len(content), blake3(content).digest())
    plain = [open_piece(KEY, world.parcel, machine, i, one) for i, one in enumerate(fetched)]
    assert b"".join(plain) == content
