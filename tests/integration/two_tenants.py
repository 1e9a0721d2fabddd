"""A tenant with one of everything that a request can name, and ids that nothing has."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, select

from controller import clock
from controller.db.schema import metadata, tasks
from protocol.codec import encode_envelope, encode_order, to_ms
from protocol.identity import Role
from protocol.ids import PointId
from protocol.inventory import body_hash
from protocol.order import sign
from protocol.standing import Standing
from protocol.v1 import (
    inventory_pb2,
    job_pb2,
    link_pb2,
    operator_pb2,
    parcel_pb2,
    proof_pb2,
    retention_pb2,
    vault_pb2,
)
from protocol.v1.inventory_pb2_grpc import InventoryServiceStub
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import MachineServiceStub, OperatorServiceStub, TenantServiceStub
from protocol.v1.parcel_pb2_grpc import ParcelServiceStub
from protocol.v1.proof_pb2_grpc import ProofServiceStub
from protocol.v1.retention_pb2_grpc import RetentionServiceStub
from protocol.vault.chunk import ChunkId
from protocol.vault.point import RestorePoint, Totals, sign_point
from tests.integration.conftest import Enrolled, Installation
from tests.integration.test_link import enveloped, linked, order_for, submit
from tests.integration.test_vault_service import back_up, stub

BY_ITSELF = {
    "audit_checkpoints": "one is made every minute",
    "scrubs": "a running controller looks at what is stored",
    "generations": "a running controller collects what was forgotten",
    "tombstones": "so it does",
    "doomed_packs": "so it does",
}
"""Tables that a controller changes while nobody asks it anything."""


@dataclass(frozen=True)
class Side:
    """Ids of one tenant's things, by what they name, and words of its own."""

    tenant: str
    machine: str
    token: str
    job: str
    task: str
    standing: str
    point: str
    gone: str
    session: str
    chunk: bytes
    section: bytes
    parcel: str
    drill: str
    operator: str
    word: str

    def words(self) -> dict[str, bytes]:
        """What gives this tenant away where it stands, by what it is."""
        return {
            kind: value if isinstance(value, bytes) else value.encode()
            for kind, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Furnished:
    """A tenant as its operators see it, and as its machine does which makes calls."""

    to_operators: Side
    to_machines: Side
    machine: Enrolled

    def words(self) -> dict[str, bytes]:
        """What gives this tenant away; what both name is there once."""
        return self.to_operators.words() | {
            f"own {kind}": word for kind, word in self.to_machines.words().items()
        }


def nobody() -> Side:
    """Ids of the right form that nothing has."""
    kinds = ("tn", "mc", "tk", "or", "ts", "or", "rp", "rp", "vs", "pc", "dr")
    tenant, machine, token, job, task, standing, point, gone, session, parcel, drill = map(
        clock.new_id, kinds
    )
    return Side(
        tenant=tenant,
        machine=machine,
        token=token,
        job=job,
        task=task,
        standing=standing,
        point=point,
        gone=gone,
        session=session,
        chunk=os.urandom(32),
        section=os.urandom(32),
        parcel=parcel,
        drill=drill,
        operator="nobody-at-all",
        word="word-of-nobody",
    )


async def furnish(installation: Installation, name: str) -> Furnished:
    """A tenant with one of everything; every name in it begins with its own."""
    tenant = await installation.add_tenant(name)
    token = await installation.add_token(tenant, uses=3)
    calling = await installation.enroll(token, f"{name}-calls")
    spare = await installation.enroll(token, f"{name}-spare")
    order, over = order_for(tenant, calling, spare), order_for(tenant, calling, spare)
    ends_at_ms = to_ms(clock.now() + timedelta(days=9))
    standing = replace(
        order_for(tenant, calling, spare),
        standing=Standing("daily", ends_at_ms, name=f"{name}-order"),
    )
    for one in (order, standing):
        await submit(installation, enveloped(installation, one))
    key, eve = installation.operator(f"{name}-eve", Role.TECHNICIAN, frozenset({tenant}))
    signed = encode_envelope(sign(encode_order(over), key=key, certificate=eve))
    hers = JobServiceStub(installation.channel(key, eve))
    await hers.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=signed))
    # Whoever watches it is told the end at once.
    await hers.CancelJob(job_pb2.CancelJobRequest(job_id=over.id))
    run = link_pb2.StandingRun(order_id=standing.id, slot_ms=to_ms(clock.now()), number=1)
    async with linked(installation, calling) as agent:
        await agent.say(task_started=link_pb2.TaskStarted(task_id=clock.new_id("ts"), run=run))
        await agent.say(heartbeat=link_pb2.Heartbeat())
        await agent.hear("heartbeat_acknowledged")

    def offered(connection: Connection) -> str:
        query = select(tasks.c.id).where(tasks.c.job_id == order.id)
        return str(connection.scalar(query.where(tasks.c.machine_id == calling.id)))

    (gone, _), *_, (point, chunk) = [await _backed_up(installation, spare) for _ in range(5)]
    own_point, _ = await _backed_up(installation, calling)
    session = await stub(installation, calling).Begin(
        vault_pb2.BeginRequest(point_id=clock.new_id("rp"))
    )
    for machine in (spare, calling):
        section = await _said(installation, machine, name)
        drill = await _drilled(installation, machine, point)
    parcel = await _on_its_way(installation, tenant, name, calling, spare)
    await _shared(installation, tenant, eve, name)
    await _kept(installation, spare, point, gone, name)
    side = Side(
        tenant=tenant,
        machine=spare.id,
        token=token.id,
        job=over.id,
        task=await installation.controller.parts.db.read(offered),
        standing=standing.id,
        point=point,
        gone=gone,
        session=session.session_id,
        chunk=chunk,
        section=section,
        parcel=parcel,
        drill=drill,
        operator=f"{name}-eve",
        word=name,
    )
    return Furnished(side, replace(side, machine=calling.id, point=own_point), calling)


async def rows_of(installation: Installation, tenant: str) -> dict[str, list[Any]]:
    """Every row of a tenant by table, but for when its machines were heard of."""

    def look(connection: Connection) -> dict[str, list[Any]]:
        found = {}
        for table in metadata.sorted_tables:
            owner = table.c.id if table.name == "tenants" else table.c.get("tenant_id")
            if owner is None or table.name in BY_ITSELF:
                continue
            columns = [column for column in table.c if column.name != "last_seen_at"]
            rows = connection.execute(select(*columns).where(owner == tenant))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return found

    rows = await installation.controller.parts.db.read(look)
    keys = [one for one in installation.controller.parts.store.list() if tenant in one[0]]
    return rows | {"objects": keys}


def signed_point(machine: Enrolled, point: str) -> bytes:
    """The record of a restore point of nothing, signed by its machine."""
    record = RestorePoint(
        id=PointId(point),
        tenant=machine.tenant,
        machine=machine.id,
        started_at=clock.now(),
        rules=bytes(32),
        detector="walk",
        scope="tenant",
        root=ChunkId(bytes(32)),
        sealed=(),
        totals=Totals(),
        previous=None,
        agent="1",
    )
    return sign_point(record, machine.key, machine.chain[:1])


async def _backed_up(installation: Installation, machine: Enrolled) -> tuple[str, bytes]:
    request, chunks, _ = await back_up(stub(installation, machine), machine)
    return request.session_id.replace("vs_", "rp_"), chunks[0]


async def _said(installation: Installation, machine: Enrolled, name: str) -> bytes:
    body = b'{"facts": {"cores": 4}, "of": "%s"}' % name.encode()
    digest = body_hash(body)
    await InventoryServiceStub(installation.machine_channel(machine)).Report(
        inventory_pb2.ReportRequest(
            collected_at_ms=to_ms(clock.now()),
            sections=[inventory_pb2.SectionHash(name="cpu", hash=digest)],
            bodies=[body],
        )
    )
    return digest


async def _drilled(installation: Installation, machine: Enrolled, point: str) -> str:
    drill = proof_pb2.Drill(drill_id=clock.new_id("dr"), point_id=point, kind="drill", state="good")
    proofs = ProofServiceStub(installation.machine_channel(machine))
    await proofs.ReportDrill(proof_pb2.ReportDrillRequest(drill=drill))
    return drill.drill_id


async def _on_its_way(
    installation: Installation, tenant: str, name: str, *machines: Enrolled
) -> str:
    parcel = parcel_pb2.OpenParcelRequest(
        tenant_id=tenant,
        parcel_id=clock.new_id("pc"),
        machine_ids=[machine.id for machine in machines],
        from_machines=True,
        max_bytes=1 << 20,
        keep_s=3600,
    )
    await ParcelServiceStub(installation.admin()).OpenParcel(parcel)
    piece = parcel_pb2.SendPieceRequest(parcel_id=parcel.parcel_id, sealed=name.encode())
    for machine in machines:
        await ParcelServiceStub(installation.machine_channel(machine)).SendPiece(piece)
    return parcel.parcel_id


async def _shared(
    installation: Installation, tenant: str, eve: x509.Certificate, name: str
) -> None:
    admin = installation.admin()
    added = operator_pb2.AddOperatorRequest(certificate=eve.public_bytes(Encoding.DER))
    await OperatorServiceStub(admin).AddOperator(added)
    share = operator_pb2.SharedKey(tenant_id=tenant, operator=f"{name}-eve", sealed=name.encode())
    await TenantServiceStub(admin).ShareTenantKey(operator_pb2.ShareTenantKeyRequest(share=share))


async def _kept(
    installation: Installation, machine: Enrolled, point: str, gone: str, name: str
) -> None:
    channel = installation.admin()
    tag = operator_pb2.TagMachineRequest(machine_id=machine.id, add=[f"{name}-tag"])
    await MachineServiceStub(channel).TagMachine(tag)
    keeping = RetentionServiceStub(channel)
    named = {"machine_id": machine.id, "point_id": point}
    await keeping.HoldPoint(retention_pb2.HoldPointRequest(**named, reason=name))
    await keeping.TagPoint(retention_pb2.TagPointRequest(**named, add=[f"{name}-tag"]))
    doomed = retention_pb2.ForgetRequest(machine_id=machine.id, point_ids=[gone], reason=name)
    await keeping.Forget(doomed)
