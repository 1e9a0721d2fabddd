"""`AuditService`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from controller.audit.chain import Entry, Head
from controller.audit.checkpoints import Checkpoints, listed, require_checkpoint
from controller.audit.log import INSTALLATION, Page, head, page_of
from controller.audit.tree import stored_node
from controller.audit.wanted import Wanted
from controller.db.database import Database
from controller.db.micros import to_micros
from controller.fleet.scope import require_tenant, require_whole
from controller.rpc.interceptor import Context, operator_calling
from protocol.checkpoint import from_us
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import OperatorIdentity
from protocol.ids import check_id
from protocol.merkle import prove_inclusion
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import AuditServiceServicer

DEFAULT_LIMIT = 1000
LARGEST_LIMIT = 5000
MOST_PROOFS = 1000
_LAST = (1 << 63) - 1


class Audit(AuditServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, checkpoints: Checkpoints) -> None:
        self._db = db
        self._checkpoints = checkpoints

    async def ListAudit(
        self, request: pb.ListAuditRequest, context: Context
    ) -> pb.ListAuditResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        after, limit = _number(request.after), _limit(request.limit)
        before = _number(request.before) or None
        wanted = Wanted(
            since=_moment(request.since_us),
            until=_moment(request.until_us),
            event=request.event,
            actor=request.actor,
            machine=request.machine_id and check_id("mc", request.machine_id),
        )

        def look(connection: Connection) -> tuple[Page, Head]:
            log = _log(connection, operator, request.tenant_id)
            found = page_of(
                connection,
                log,
                after=after,
                before=before,
                limit=limit,
                wanted=wanted,
                newest=request.newest,
            )
            return found, head(connection, log)

        found, newest = await self._db.read(look)
        return pb.ListAuditResponse(
            entries=map(_to_pb, found.entries),
            head_sequence=newest.seq,
            head_hash=newest.hash,
            cut=found.cut,
        )

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, context: Context
    ) -> pb.ListCheckpointsResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        after, limit = _number(request.after), _limit(request.limit)
        log = await self._db.read(lambda c: _log(c, operator, request.tenant_id))
        if request.fresh:
            made = await self._checkpoints.make(log)
            return pb.ListCheckpointsResponse(checkpoints=[made.signed] if made else [])
        found = await self._db.read(lambda c: listed(c, log, after=after, limit=limit))
        return pb.ListCheckpointsResponse(checkpoints=[one.signed for one in found])

    async def ProveAudit(
        self, request: pb.ProveAuditRequest, context: Context
    ) -> pb.ProveAuditResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        size, wanted = _number(request.size), list(request.sequences)
        if len(wanted) > MOST_PROOFS:
            raise SteadError(
                f"at most {MOST_PROOFS} proofs are made at once, not {len(wanted)}",
                code=Code.LIMIT,
            )
        if any(not 1 <= one <= size for one in wanted):
            raise InvalidError(f"entries are numbered from 1 to {size}")

        def prove(connection: Connection) -> list[tuple[bytes, ...]]:
            log = _log(connection, operator, request.tenant_id)
            require_checkpoint(connection, log, size)
            node = stored_node(connection, log)
            return [prove_inclusion(one - 1, size, node) for one in wanted]

        proofs = await self._db.read(prove)
        return pb.ProveAuditResponse(proofs=[pb.InclusionProof(hashes=one) for one in proofs])


def _log(connection: Connection, operator: OperatorIdentity, tenant: str) -> str:
    """The log that is meant, if the operator may see it."""
    if tenant:
        return require_tenant(connection, operator, tenant)
    require_whole(operator)
    return INSTALLATION


def _number(value: int) -> int:
    if value > _LAST:
        raise InvalidError(f"{value} is not the number of an entry")
    return value


def _limit(value: int) -> int:
    return min(value or DEFAULT_LIMIT, LARGEST_LIMIT)


def _moment(us: int) -> datetime | None:
    return from_us(us) if us else None


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
