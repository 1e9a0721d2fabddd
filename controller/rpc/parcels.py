"""`ParcelService`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from controller.db.database import Database
from controller.fleet.scope import require_tenant
from controller.parcels.parcels import Parcels
from controller.rpc.interceptor import Context, caller, operator_calling
from protocol.errors import DeniedError, NotFoundError
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import TenantId
from protocol.parcel import OPERATOR
from protocol.v1 import parcel_pb2 as pb
from protocol.v1.parcel_pb2_grpc import ParcelServiceServicer

log = structlog.get_logger()

SWEEP_S = 600.0


class ParcelDesk(ParcelServiceServicer):
    """See `protocol/v1/parcel.proto`."""

    def __init__(self, parcels: Parcels, db: Database) -> None:
        self._parcels = parcels
        self._db = db

    async def OpenParcel(
        self, request: pb.OpenParcelRequest, context: Context
    ) -> pb.OpenParcelResponse:
        """See `Parcels.open`."""
        operator = operator_calling()
        # What a tenant may fill is counted by tenant, so there has to be one.
        tenant = await self._db.read(lambda c: require_tenant(c, operator, request.tenant_id))
        await asyncio.to_thread(
            self._parcels.open,
            tenant,
            request.parcel_id,
            request.machine_ids,
            from_machines=request.from_machines,
            max_bytes=request.max_bytes,
            keep=timedelta(seconds=request.keep_s),
        )
        return pb.OpenParcelResponse()

    async def ListPieces(
        self, request: pb.ListPiecesRequest, context: Context
    ) -> pb.ListPiecesResponse:
        """See `Parcels.held`."""
        tenant, who = _calling(request.tenant_id)
        sender = (request.sender_id or who) if who == OPERATOR else who
        hashes = await asyncio.to_thread(self._parcels.held, tenant, request.parcel_id, sender)
        return pb.ListPiecesResponse(hashes=hashes)

    async def SendPiece(
        self, request: pb.SendPieceRequest, context: Context
    ) -> pb.SendPieceResponse:
        """See `Parcels.send`."""
        tenant, who = _calling(request.tenant_id)
        await asyncio.to_thread(
            self._parcels.send, tenant, request.parcel_id, who, request.index, request.sealed
        )
        return pb.SendPieceResponse()

    async def FetchPiece(
        self, request: pb.FetchPieceRequest, context: Context
    ) -> pb.FetchPieceResponse:
        """See `Parcels.fetch`."""
        tenant, who = _calling(request.tenant_id)
        sender = (request.sender_id or OPERATOR) if who == OPERATOR else OPERATOR
        sealed = await asyncio.to_thread(
            self._parcels.fetch, tenant, request.parcel_id, sender, request.index, who
        )
        return pb.FetchPieceResponse(sealed=sealed)

    async def DropParcel(
        self, request: pb.DropParcelRequest, context: Context
    ) -> pb.DropParcelResponse:
        """See `Parcels.drop`."""
        tenant, who = _calling(request.tenant_id)
        await asyncio.to_thread(self._parcels.drop, tenant, request.parcel_id, who)
        return pb.DropParcelResponse()


async def sweep_forever(parcels: Parcels) -> None:
    """Remove what nobody fetched in time, now and every ten minutes."""
    while True:
        try:
            removed = await asyncio.to_thread(parcels.sweep)
        except Exception:
            log.exception("parcels_not_swept")
        else:
            if removed:
                log.info("parcels_removed", count=removed)
        await asyncio.sleep(SWEEP_S)


def _calling(named: str) -> tuple[TenantId, str]:
    """The tenant whose parcels are meant, and who calls: a machine's id, or OPERATOR."""
    match caller():
        case MachineIdentity(tenant=tenant, machine=machine):
            return tenant, machine
        case OperatorIdentity() as operator:
            tenant = TenantId(named)
            if not operator.may_see(tenant):
                raise NotFoundError(f"there is no tenant {named[:80]!r}")
            return tenant, OPERATOR
        case _:
            raise DeniedError("only machines and operators may call this")
