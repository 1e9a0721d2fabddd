"""`ProofService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial

from controller import clock
from controller.db.database import Database
from controller.fleet.scope import tenants_meant
from controller.rpc.interceptor import Context, machine_calling, operator_calling
from controller.vault import drills, stats
from controller.vault.scrub.health import Health, OpenDamage, PastRound
from controller.vault.scrub.scrubber import Progress, Scrub
from protocol.codec import from_ms, to_ms
from protocol.errors import InvalidError
from protocol.identity import OperatorIdentity
from protocol.ids import TenantId
from protocol.v1 import proof_pb2 as pb
from protocol.v1.proof_pb2_grpc import ProofServiceServicer

_LEAST_STEP = timedelta(hours=1)
_GREATEST = (1 << 64) - 1


class Proof(ProofServiceServicer):
    """See `protocol/v1/proof.proto`."""

    def __init__(self, db: Database, scrub: Scrub) -> None:
        self._db = db
        self._scrub = scrub

    async def CheckVault(
        self, request: pb.CheckVaultRequest, context: Context
    ) -> AsyncIterator[pb.CheckVaultResponse]:
        """See `Scrub.ordered`."""
        wanted = await self._tenants(operator_calling(), request.tenant_id)
        looking = self._scrub.ordered(wanted, mend_all=False, bytes_per_s=request.bytes_per_s)
        async with aclosing(looking):
            async for told in looking:
                yield pb.CheckVaultResponse(looked=_looked(told))

    async def ScrubVault(
        self, request: pb.ScrubVaultRequest, context: Context
    ) -> AsyncIterator[pb.ScrubVaultResponse]:
        """See `Scrub.ordered`."""
        wanted = await self._tenants(operator_calling(), request.tenant_id)
        looking = self._scrub.ordered(wanted, mend_all=True, bytes_per_s=request.bytes_per_s)
        async with aclosing(looking):
            async for told in looking:
                yield pb.ScrubVaultResponse(looked=_looked(told))

    async def GetScrubStatus(
        self, request: pb.GetScrubStatusRequest, context: Context
    ) -> pb.GetScrubStatusResponse:
        """See `Scrub.status`."""
        wanted = await self._tenants(operator_calling(), request.tenant_id)
        return pb.GetScrubStatusResponse(
            vaults=[_status(one) for one in await self._scrub.status(wanted)]
        )

    async def ReportDrill(
        self, request: pb.ReportDrillRequest, context: Context
    ) -> pb.ReportDrillResponse:
        """See `drills.report`."""
        machine = machine_calling()
        said = request.drill
        try:
            details = said.details.decode()
        except UnicodeDecodeError as error:
            raise InvalidError(f"the details of a drill are not UTF-8: {error}") from error
        drill = drills.Drill(
            id=said.drill_id,
            machine=machine.machine,
            point=said.point_id,
            kind=said.kind,
            state=said.state,
            started_at=from_ms(said.started_at_ms),
            received_at=clock.now(),
            took_ms=said.took_ms,
            files=said.files,
            bytes=said.bytes,
            compared=said.compared,
            wrong=said.wrong,
            message=said.message,
            details=details,
        )
        await self._db.write(lambda c: drills.report(c, machine, drill))
        return pb.ReportDrillResponse()

    async def ListDrills(
        self, request: pb.ListDrillsRequest, context: Context
    ) -> pb.ListDrillsResponse:
        """See `drills.listed`."""
        operator = operator_calling()
        found = await self._db.read(
            lambda c: drills.listed(
                c, operator, request.tenant_id, request.machine_id, request.kind, request.limit
            )
        )
        return pb.ListDrillsResponse(drills=[_drill(one) for one in found])

    async def GetVaultStats(
        self, request: pb.GetVaultStatsRequest, context: Context
    ) -> pb.GetVaultStatsResponse:
        """See `stats.figures`."""
        step = timedelta(seconds=min(request.step_s, 10**9)) if request.step_s else stats.WEEK
        if step < _LEAST_STEP:
            raise InvalidError("growth is told in steps of an hour or more")
        wanted = await self._tenants(operator_calling(), request.tenant_id)
        vaults = [
            await self._db.read(partial(stats.figures, tenant=tenant, step=step))
            for tenant in wanted
        ]
        return pb.GetVaultStatsResponse(vaults=[stats_to_pb(one) for one in vaults])

    async def _tenants(self, operator: OperatorIdentity, tenant: str) -> list[TenantId]:
        return await self._db.read(lambda c: tenants_meant(c, operator, tenant))


def _looked(told: Progress) -> pb.Looked:
    counts = told.counts
    return pb.Looked(
        packs=counts.packs,
        bytes=counts.bytes,
        total_bytes=told.total_bytes,
        points=counts.points,
        damaged=counts.damaged,
        unreadable=counts.unreadable,
        faults=[
            pb.VaultFault(object_key=f.object_key, chunk_id=f.chunk or b"", reason=f.reason)
            for f in told.faults
        ],
        damages=told.damages,
        is_done=told.is_done,
    )


def _status(one: Health) -> pb.ScrubStatus:
    return pb.ScrubStatus(
        tenant_id=one.tenant,
        packs=one.packs,
        total_bytes=one.total_bytes,
        rounds=[_round(past) for past in one.rounds],
        damages=[_damage(damage) for damage in one.damages],
        unreadable=[
            pb.UnreadableObject(
                object_key=found.object_key,
                first_at_ms=to_ms(found.first_at),
                last_at_ms=to_ms(found.last_at),
                tries=found.tries,
                reason=found.reason,
            )
            for found in one.unreadable
        ],
    )


def _round(past: PastRound) -> pb.ScrubRound:
    return pb.ScrubRound(
        number=past.number,
        kind=past.kind,
        began_at_ms=to_ms(past.began_at),
        ended_at_ms=to_ms(past.ended_at),
        packs=past.counts.packs,
        bytes=past.counts.bytes,
        points=past.counts.points,
        damaged=past.counts.damaged,
        unreadable=past.counts.unreadable,
    )


def _damage(damage: OpenDamage) -> pb.Damage:
    return pb.Damage(
        number=damage.number,
        object_key=damage.object_key,
        found_at_ms=to_ms(damage.found_at),
        reason=damage.reason,
        kept_chunks=damage.kept,
        lost_chunks=damage.lost,
        missing_chunks=damage.missing,
        hit=[
            pb.HitMachine(machine_id=machine, point_ids=named)
            for machine, named in (damage.hit or {}).items()
        ],
        hit_is_known=damage.hit is not None,
    )


def _drill(one: drills.Drill) -> pb.Drill:
    return pb.Drill(
        drill_id=one.id,
        machine_id=one.machine,
        point_id=one.point,
        kind=one.kind,
        state=one.state,
        started_at_ms=to_ms(one.started_at),
        received_at_ms=to_ms(one.received_at),
        took_ms=one.took_ms,
        files=one.files,
        bytes=one.bytes,
        compared=one.compared,
        wrong=one.wrong,
        message=one.message,
        details=one.details.encode(),
    )


def stats_to_pb(one: stats.Figures) -> pb.VaultStats:
    """The figures of a tenant on the wire."""
    return pb.VaultStats(
        tenant_id=one.tenant,
        points=one.points,
        logical_bytes=_at_most(one.logical_bytes),
        newest_bytes=_at_most(one.newest_bytes),
        stream_bytes=_at_most(one.stream_bytes),
        unique_bytes=_at_most(one.unique_bytes),
        unique_is_known=one.unique_is_known,
        chunk_bytes=one.chunk_bytes,
        chunks=one.chunks,
        packs=one.packs,
        pack_bytes=one.pack_bytes,
        machines=[
            pb.MachineStats(
                machine_id=machine,
                points=found.points,
                logical_bytes=_at_most(found.logical_bytes),
                newest_bytes=_at_most(found.newest_bytes),
                stream_bytes=_at_most(found.stream_bytes),
                sent_bytes=_at_most(found.sent_bytes),
                first_at_ms=to_ms(found.first_at),
                last_at_ms=to_ms(found.last_at),
            )
            for machine, found in one.machines.items()
        ],
        growth=[
            pb.Growth(
                from_ms=to_ms(at),
                points=piece.points,
                logical_bytes=_at_most(piece.logical_bytes),
                sent_bytes=_at_most(piece.sent_bytes),
                stored_bytes=piece.stored_bytes,
            )
            for at, piece in one.growth.items()
        ],
    )


def _at_most(figure: int) -> int:
    """What fits the field: sums of what machines say, of which one may have made it up."""
    return min(figure, _GREATEST)
