"""`ControllerService`."""

from __future__ import annotations

import asyncio
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.audit.checkpoints import Checkpoints
from controller.audit.log import INSTALLATION
from controller.audit.unsigned import unsigned_logs
from controller.authority.change import AuthorityChange
from controller.db.database import Database
from controller.fleet.census import take_census
from controller.fleet.presence import Presence
from controller.fleet.scope import require_whole
from controller.rpc.interceptor import Context, operator_calling
from controller.rpc.revoking import Revoking
from controller.store.store import ObjectStore
from controller.version import VERSION
from protocol.codec import read_revocations, to_ms
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import ControllerServiceServicer


class Status(ControllerServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(
        self,
        db: Database,
        store: ObjectStore,
        presence: Presence,
        started_at: datetime,
        changing: AuthorityChange,
        revoking: Revoking,
        checkpoints: Checkpoints,
        root: x509.Certificate,
    ) -> None:
        self._revoking = revoking
        self._root = root
        self._changing = changing
        self._checkpoints = checkpoints
        self._db = db
        self._store = store
        self._presence = presence
        self._started_at = started_at

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        census = await self._db.read(lambda c: take_census(c, operator))
        names = dict(census.tenants)
        if operator.tenants is None:
            names[INSTALLATION] = "installation"
        unsigned = await self._db.read(
            lambda c: unsigned_logs(c, names, self._checkpoints.fault_of, clock.now())
        )
        free = await asyncio.to_thread(self._store.free_bytes)
        return pb.StatusResponse(
            version=VERSION,
            controller_time_ms=to_ms(clock.now()),
            started_at_ms=to_ms(self._started_at),
            linked_machines=self._presence.count(census.machines),
            machines=len(census.machines),
            open_jobs=census.open_jobs,
            free_bytes=free or 0,
            authority_ends_at_ms=to_ms(self._changing.ends_at),
            unsigned_logs=[
                pb.UnsignedLog(
                    log=one.name,
                    entries=one.entries,
                    signed=one.signed,
                    since_ms=to_ms(one.since),
                    reason=one.reason,
                )
                for one in unsigned
            ],
            machines_with_audit_alarms=census.alarmed,
        )

    async def PrepareAuthority(
        self, request: pb.PrepareAuthorityRequest, context: Context
    ) -> pb.PrepareAuthorityResponse:
        """See `protocol/v1/operator.proto`."""
        require_whole(operator_calling())
        return pb.PrepareAuthorityResponse(public_key=await self._changing.prepare())

    async def InstallAuthority(
        self, request: pb.InstallAuthorityRequest, context: Context
    ) -> pb.InstallAuthorityResponse:
        """See `protocol/v1/operator.proto`."""
        operator = require_whole(operator_calling())
        await self._changing.install(request.certificate, f"operator/{operator.name}")
        return pb.InstallAuthorityResponse()

    async def ListAuthorities(
        self, request: pb.ListAuthoritiesRequest, context: Context
    ) -> pb.ListAuthoritiesResponse:
        """See `protocol/v1/operator.proto`."""
        found = self._changing.authorities
        return pb.ListAuthoritiesResponse(
            certificates=[one.public_bytes(Encoding.DER) for one in found]
        )

    async def DistrustAuthorities(
        self, request: pb.DistrustAuthoritiesRequest, context: Context
    ) -> pb.DistrustAuthoritiesResponse:
        """See `protocol/v1/operator.proto`."""
        operator = require_whole(operator_calling())
        listed = read_revocations(request.revocations, self._root)
        self._changing.check_replaced(listed.distrusted)
        await self._revoking.revoke((), request.revocations, by=operator.name)
        return pb.DistrustAuthoritiesResponse()
