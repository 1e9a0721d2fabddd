"""`InventoryService`."""

from __future__ import annotations

from controller.db.database import Database
from controller.fleet.inventory import read_manifest, report
from controller.rpc.interceptor import Context, machine_calling
from protocol.codec import from_ms
from protocol.v1 import inventory_pb2 as pb
from protocol.v1.inventory_pb2_grpc import InventoryServiceServicer


class Inventories(InventoryServiceServicer):
    """See `protocol/v1/inventory.proto`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """See `protocol/v1/inventory.proto`."""
        reported = await report(
            self._db,
            machine_calling(),
            read_manifest((section.name, section.hash) for section in request.sections),
            request.bodies,
            from_ms(request.collected_at_ms),
        )
        return pb.ReportResponse(missing=reported.missing, root=reported.root)
