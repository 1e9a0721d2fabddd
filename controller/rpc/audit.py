"""`AuditService`."""

from __future__ import annotations

from sqlalchemy import Connection

from controller.audit.chain import Entry, Head
from controller.audit.log import INSTALLATION, entries, head
from controller.db.database import Database
from controller.db.micros import to_micros
from controller.fleet.scope import require_tenant, require_whole
from controller.rpc.interceptor import Context, operator_calling
from protocol.errors import InvalidError
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import AuditServiceServicer

DEFAULT_LIMIT = 1000
LARGEST_LIMIT = 5000
_LAST = (1 << 63) - 1


class Audit(AuditServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ListAudit(
        self, request: pb.ListAuditRequest, context: Context
    ) -> pb.ListAuditResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        if request.after > _LAST:
            raise InvalidError(f"{request.after} is not the number of an entry")

        def look(connection: Connection) -> tuple[list[Entry], Head]:
            tenant: str = INSTALLATION
            if request.tenant_id:
                tenant = require_tenant(connection, operator, request.tenant_id)
            else:
                require_whole(operator)
            limit = min(request.limit or DEFAULT_LIMIT, LARGEST_LIMIT)
            return entries(connection, tenant, request.after, limit), head(connection, tenant)

        found, newest = await self._db.read(look)
        return pb.ListAuditResponse(
            entries=map(_to_pb, found), head_sequence=newest.seq, head_hash=newest.hash
        )


def _to_pb(entry: Entry) -> pb.AuditEntry:
    return pb.AuditEntry(
        sequence=entry.seq,
        at_us=to_micros(entry.at),
        actor=entry.actor,
        event=entry.event,
        body=entry.body,
        previous=entry.previous,
        hash=entry.hash,
    )
