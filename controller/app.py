"""The one place where a controller's parts are put together.

`link_services` says what the link port serves; a new service gets a line there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from controller import clock
from controller.audit.checkpoints import Checkpoints, Sealer
from controller.audit.witnesses import Witnesses
from controller.authority import holders, operators, revocations
from controller.authority.authority import (
    ENDS_SOON,
    Authority,
    ServingCertificate,
    load_authority,
)
from controller.authority.change import AuthorityChange
from controller.authority.desk import Desk
from controller.authority.trust import Trust
from controller.config import ControllerHome, Settings
from controller.db.database import Database
from controller.fleet import machines
from controller.fleet.presence import Presence
from controller.jobs.desk import JobDesk
from controller.jobs.rolling import Rolling
from controller.parcels.parcels import Parcels
from controller.rpc.audit import Audit
from controller.rpc.controller import Status
from controller.rpc.enrollment import Enrollment
from controller.rpc.interceptor import LiveCalls
from controller.rpc.inventory import Inventories
from controller.rpc.jobs import Jobs
from controller.rpc.link import Link
from controller.rpc.machines import Machines
from controller.rpc.operators import Operators
from controller.rpc.parcels import ParcelDesk, sweep_forever
from controller.rpc.policies import Policies
from controller.rpc.proof import Proof
from controller.rpc.retention import Retention
from controller.rpc.revoking import Revoking
from controller.rpc.server import Add, Server
from controller.rpc.tenants import Tenants
from controller.rpc.tokens import Tokens
from controller.rpc.vault import VaultServicer
from controller.store.local import LocalStore
from controller.store.store import ObjectStore
from controller.vault.vault import Vault
from protocol.errors import InvalidError
from protocol.identity import MachineIdentity
from protocol.v1.enrollment_pb2_grpc import add_EnrollmentServiceServicer_to_server
from protocol.v1.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from protocol.v1.job_pb2_grpc import add_JobServiceServicer_to_server
from protocol.v1.link_pb2_grpc import add_LinkServiceServicer_to_server
from protocol.v1.operator_pb2_grpc import (
    add_AuditServiceServicer_to_server,
    add_ControllerServiceServicer_to_server,
    add_MachineServiceServicer_to_server,
    add_OperatorServiceServicer_to_server,
    add_TenantServiceServicer_to_server,
    add_TokenServiceServicer_to_server,
)
from protocol.v1.parcel_pb2_grpc import add_ParcelServiceServicer_to_server
from protocol.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from protocol.v1.proof_pb2_grpc import add_ProofServiceServicer_to_server
from protocol.v1.retention_pb2_grpc import add_RetentionServiceServicer_to_server
from protocol.v1.vault_pb2_grpc import add_VaultServiceServicer_to_server

log = structlog.get_logger()

GRACE = timedelta(seconds=5)
"""For short calls. A restore whose machine reads no further uses all of it."""
PARTING = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Parts:
    """What services are made of. Addresses are "host:port" as machines will reach them."""

    home: ControllerHome
    settings: Settings
    db: Database
    store: ObjectStore
    authority: Authority
    trust: Trust
    calls: LiveCalls
    presence: Presence
    enrollments: Desk
    jobs: JobDesk
    rolling: Rolling
    checkpoints: Checkpoints
    vault: Vault
    parcels: Parcels
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where machines reach this controller, as "host:port"."""

    link: str
    enrollment: str


def link_services(parts: Parts, addresses: Addresses) -> Sequence[Add]:
    """Every service of the link port."""
    db = parts.db
    revoking = Revoking(db, parts.trust, parts.jobs.feed)
    return (
        partial(
            add_LinkServiceServicer_to_server,
            Link(db, parts.jobs, parts.presence, parts.trust, Witnesses(db)),
        ),
        partial(add_JobServiceServicer_to_server, Jobs(parts.jobs)),
        partial(add_VaultServiceServicer_to_server, VaultServicer(parts.vault)),
        partial(add_ParcelServiceServicer_to_server, ParcelDesk(parts.parcels, db)),
        partial(add_ProofServiceServicer_to_server, Proof(db, parts.vault.scrub)),
        partial(add_RetentionServiceServicer_to_server, Retention(db, parts.vault.keeper)),
        partial(add_InventoryServiceServicer_to_server, Inventories(db)),
        partial(
            add_ControllerServiceServicer_to_server,
            Status(
                db,
                parts.store,
                parts.presence,
                parts.started_at,
                AuthorityChange(parts.home, db, parts.authority, parts.trust),
                revoking,
                parts.checkpoints,
                parts.authority.root,
            ),
        ),
        partial(add_TenantServiceServicer_to_server, Tenants(db, parts.store)),
        partial(add_PolicyServiceServicer_to_server, Policies(db, parts.trust, parts.jobs.feed)),
        partial(add_OperatorServiceServicer_to_server, Operators(db, parts.trust, revoking)),
        partial(add_TokenServiceServicer_to_server, Tokens(db, addresses.enrollment)),
        partial(add_MachineServiceServicer_to_server, Machines(db, parts.trust, parts.presence)),
        partial(add_AuditServiceServicer_to_server, Audit(db, parts.checkpoints)),
    )


def enrollment_services(parts: Parts, addresses: Addresses) -> Sequence[Add]:
    """Every service of the enrollment port."""
    servicer = Enrollment(parts.enrollments, addresses.link)
    return (partial(add_EnrollmentServiceServicer_to_server, servicer),)


class Controller:
    """A running controller; `serve` makes one."""

    def __init__(self, parts: Parts, server: Server, addresses: Addresses) -> None:
        self.parts = parts
        self.addresses = addresses
        self._server = server
        self._sweeping = asyncio.create_task(parts.jobs.sweep_forever())
        self._scrubbing = asyncio.create_task(parts.vault.scrub.run_forever())
        self._rolling = asyncio.create_task(parts.rolling.run_forever())
        self._keeping = asyncio.create_task(parts.vault.keeper.run_forever())
        self._parcels = asyncio.create_task(sweep_forever(parts.parcels))
        self._signing = asyncio.create_task(parts.checkpoints.run_forever())

    @classmethod
    async def serve(cls, home: Path, settings: Settings | None = None) -> Controller:
        """Open what is below `home` and listen; `settings` take the place of the file's.

        Raises PRECONDITION where nothing was initialised or a port is taken, LOCKED
        when another controller has the database, and what the database says of itself.
        """
        place = ControllerHome(home / "controller")
        settings = place.load_settings() if settings is None else settings
        if not settings.names:
            raise InvalidError(f"{place.settings}: names is empty; a controller needs one")
        authority = load_authority(place, clock.now())
        _warn_of_end(authority)
        store = await asyncio.to_thread(
            LocalStore.open, Path(settings.objects) if settings.objects else place.objects
        )
        db = await asyncio.to_thread(Database.open, place.database_url(settings))
        parts = None
        try:
            parts = await _assemble(place, settings, authority, db, store)
            certificate = ServingCertificate(authority, settings.names)
            server = Server(parts.trust, certificate, parts.calls)
            addresses = _addresses(settings, server.bind(settings.listen, settings.enroll_listen))
            await server.start(
                link_services(parts, addresses), enrollment_services(parts, addresses)
            )
        except BaseException:
            if parts is not None:
                await parts.vault.close()
            await db.close()
            raise
        log.info("controller_started", link=addresses.link, enrollment=addresses.enrollment)
        return cls(parts, server, addresses)

    async def stop(self, grace: timedelta = GRACE) -> None:
        """Part from the machines, let short calls end, then close the database.

        The log says when each of that is done: what is missing there did not end.
        """
        began = clock.monotonic()

        def ended(part: str) -> None:
            log.info("controller_stopping", ended=part, seconds=round(clock.monotonic() - began, 2))

        await self.parts.presence.drain(min(grace, PARTING))
        await self._server.stop(grace)
        ended("calls")
        self._sweeping.cancel()
        self._scrubbing.cancel()
        self._rolling.cancel()
        self._keeping.cancel()
        self._parcels.cancel()
        self._signing.cancel()
        await asyncio.gather(
            self._sweeping,
            self._rolling,
            self._scrubbing,
            self._keeping,
            self._parcels,
            self._signing,
            return_exceptions=True,
        )
        ended("tasks")
        await self.parts.vault.close()
        ended("vault")
        await self.parts.enrollments.close()
        await self.parts.db.close()
        log.info("controller_stopped", seconds=round(clock.monotonic() - began, 2))


async def _assemble(
    home: ControllerHome, settings: Settings, authority: Authority, db: Database, store: ObjectStore
) -> Parts:
    trust = Trust(root=authority.root, issuing=authority.believed)

    def load(connection: Connection) -> None:
        listed = revocations.in_force(connection, authority.root)
        trust.load(
            machines.barred(connection),
            [*operators.revoked_names(connection), *revocations.names_in(listed)],
            revocations.kept(connection),
            machines.waiting(connection),
            listed.distrusted,
            machines.keys(connection),
        )
        trust.holding.load(holders.key_of(connection), holders.newest(connection))

    await db.write(load)
    notes: set[asyncio.Task[None]] = set()

    def note_old(machine: MachineIdentity, shown: int, newest: int) -> None:
        noting = asyncio.create_task(
            db.write(lambda c: holders.note_old(c, machine, shown, newest, clock.now()))
        )
        notes.add(noting)
        noting.add_done_callback(notes.discard)

    trust.holding.on_old = note_old
    authority.check_trusted(trust.distrusted)
    calls = LiveCalls()
    trust.on_revoked(calls.cut)
    trust.on_distrusted(calls.cut_certified_by)
    presence, desk = Presence(db), JobDesk(db, authority.root)
    return Parts(
        home=home,
        settings=settings,
        db=db,
        store=store,
        authority=authority,
        trust=trust,
        calls=calls,
        presence=presence,
        enrollments=Desk(db, authority, trust.admit),
        jobs=desk,
        rolling=Rolling(db, desk.feed, presence.linked),
        checkpoints=Checkpoints(
            db,
            lambda: Sealer(
                authority.issuing.key, authority.issuing.certificate.public_bytes(Encoding.DER)
            ),
        ),
        vault=Vault(store, db, trust),
        parcels=Parcels(store, clock.now),
        started_at=clock.now(),
    )


def _addresses(settings: Settings, ports: tuple[int, int]) -> Addresses:
    name = settings.names[0]
    host = f"[{name}]" if ":" in name else name
    return Addresses(
        link=settings.link_address or f"{host}:{ports[0]}",
        enrollment=settings.enrollment_address or f"{host}:{ports[1]}",
    )


def _warn_of_end(authority: Authority) -> None:
    ends_at = authority.issuing.certificate.not_valid_after_utc
    if clock.now() >= ends_at - ENDS_SOON:
        log.warning("issuing_authority_ends_soon", ends_at=ends_at.isoformat())
