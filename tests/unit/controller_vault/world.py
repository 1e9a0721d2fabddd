"""A small installation without a network: authorities, a tenant's machines, a vault."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, insert

from controller.authority.certificates import (
    Issuer,
    certify_machine,
    make_issuing,
    make_root,
)
from controller.authority.keys import new_key, new_serial
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.schema import machines, tenants
from controller.store.local import LocalStore
from controller.store.store import ObjectStore
from controller.vault.upload.sessions import Begun
from controller.vault.upload.writer import Arrival
from controller.vault.vault import Vault
from protocol.identity import MachineIdentity, key_hash
from protocol.ids import MachineId, TenantId, make_id
from protocol.vault.chunk import ChunkId, Kind, Sealer
from protocol.vault.keys import TenantKey
from protocol.vault.point import RestorePoint, Totals, sign_point
from tests.fakes.new_database import new_database

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SEALER_KEY = TenantKey(bytes(range(32)))


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, **amount: float) -> None:
        self.at += timedelta(**amount)


@dataclass(frozen=True)
class Member:
    """A machine with its key."""

    identity: MachineIdentity
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, point: RestorePoint) -> bytes:
        return sign_point(point, self.key, [self.certificate])


def an_id(prefix: str) -> str:
    return make_id(prefix, at_ms=1_770_000_000_000, random=os.urandom(10))


@dataclass
class World:
    """See the module."""

    root: Issuer
    issuing: Issuer
    clock: Clock
    store: ObjectStore
    db: Database
    options: dict[str, Any] = field(default_factory=dict)
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @classmethod
    def make(cls, home: Path, store: ObjectStore | None = None, **options: Any) -> World:
        root_key, issuing_key = new_key(), new_key()
        root = Issuer(make_root(root_key, serial=new_serial(), now=START), root_key)
        issuing = Issuer(
            make_issuing(root, issuing_key.public_key(), serial=new_serial(), now=START),
            issuing_key,
        )
        db = Database.open(new_database(home / "stead.db"))
        kept = LocalStore.open(home / "objects") if store is None else store
        return cls(root, issuing, Clock(), kept, db, {"floor_bytes": 0} | options)

    def start(self) -> None:
        trust = Trust(self.root.certificate, (self.issuing.certificate,))
        # By itself a clock that is advanced has run so far: nobody has set it.
        options = {"ticks": lambda: self.clock.at.timestamp()} | self.options
        self.vault = Vault(self.store, self.db, trust, now=self.clock.now, **options)

    async def restart(self) -> None:
        """A controller that comes back and remembers what is on the disk."""
        await self.vault.close()
        self.start()

    async def close(self) -> None:
        await self.vault.close()
        await self.db.close()

    async def tenant(self) -> TenantId:
        tenant = TenantId(an_id("tn"))

        def act(connection: Connection) -> None:
            connection.execute(
                insert(tenants).values(
                    id=tenant, name=tenant, dedup_scope="tenant", created_at=START
                )
            )

        await self.db.write(act)
        return tenant

    async def machine(self, tenant: TenantId | None = None) -> Member:
        tenant = await self.tenant() if tenant is None else tenant
        identity = MachineIdentity(tenant, MachineId(an_id("mc")))
        key = new_key()
        leaf = certify_machine(
            self.issuing, key.public_key(), identity, serial=new_serial(), now=START
        )

        def act(connection: Connection) -> None:
            connection.execute(
                insert(machines).values(
                    id=identity.machine,
                    tenant_id=tenant,
                    name=identity.machine,
                    state="active",
                    public_key_hash=key_hash(key.public_key()),
                    hostname="a",
                    agent_version="1",
                    enrolled_at=START,
                )
            )

        await self.db.write(act)
        return Member(identity, key, leaf)

    async def send(
        self, who: Member, begun: Begun, messages: Iterable[Sequence[bytes]], flush: bool = False
    ) -> list[int]:
        """Put messages of chunks; what was acknowledged."""

        async def arrivals() -> AsyncIterator[Arrival]:
            for message in messages:
                yield Arrival(message, session=begun.session.id)
            if flush:
                yield Arrival((), flush=True, session=begun.session.id)

        return [n async for n in self.vault.put(who.identity, arrivals())]

    async def read(self, who: Member, ids: Sequence[ChunkId]) -> list[bytes]:
        return [c async for message in self.vault.get(who.identity, "", ids) for c in message]

    async def point(self, who: Member, root: ChunkId, begun: Begun) -> bytes:
        """A signed record that fits the session."""
        return who.sign(a_point(who, root, begun))


def a_point(who: Member, root: ChunkId, begun: Begun, **other: Any) -> RestorePoint:
    values: dict[str, Any] = {
        "id": begun.session.id.replace("vs_", "rp_"),
        "tenant": who.identity.tenant,
        "machine": who.identity.machine,
        "started_at": START,
        "rules": bytes(32),
        "detector": "walk",
        "scope": "tenant",
        "root": root,
        "sealed": (),
        "totals": Totals(),
        "previous": begun.parent_hash,
        "agent": "1",
    }
    return RestorePoint(**(values | other))


def data_chunk(content: bytes) -> tuple[ChunkId, bytes]:
    reference, stored = Sealer(SEALER_KEY.secret).seal(Kind.DATA, content)
    return reference.id, stored


def tree_chunk(content: bytes, children: Sequence[ChunkId]) -> tuple[ChunkId, bytes]:
    reference, stored = Sealer(SEALER_KEY.secret).seal(Kind.TREE, content, children)
    return reference.id, stored
