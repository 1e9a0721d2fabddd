"""`RetentionService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select

from controller import clock
from controller.db.database import Database
from controller.db.schema import point_tags
from controller.fleet.scope import require_machine, require_tenant, tenants_meant
from controller.rpc.interceptor import Context, operator_calling
from controller.vault import freezing
from controller.vault.forget import keeping
from controller.vault.keeper import Keeper, Progress
from protocol.codec import to_ms
from protocol.identity import OperatorIdentity
from protocol.v1 import retention_pb2 as pb
from protocol.v1.retention_pb2_grpc import RetentionServiceServicer

T = TypeVar("T")


class Retention(RetentionServiceServicer):
    """See `protocol/v1/retention.proto`."""

    def __init__(self, db: Database, keeper: Keeper) -> None:
        self._db = db
        self._keeper = keeper

    async def SetRules(self, request: pb.SetRulesRequest, context: Context) -> pb.SetRulesResponse:
        """See `protocol/v1/retention.proto`."""
        operator = operator_calling()
        rules = keeping.parse_rules(request.rules) if request.rules else None

        def act(connection: Connection) -> None:
            if request.machine_id:
                machine = _machine(connection, operator, request.machine_id)
                tenant, name = machine.tenant, machine.id
            else:
                tenant, name = require_tenant(connection, operator, request.tenant_id), ""
            keeping.set_rules(
                connection, tenant, name, rules, actor=_actor(operator), at=clock.now()
            )

        await self._db.write(act)
        return pb.SetRulesResponse()

    async def PlanForgetting(
        self, request: pb.PlanForgettingRequest, context: Context
    ) -> pb.PlanForgettingResponse:
        """See `protocol/v1/retention.proto`."""
        operator = operator_calling()

        instead = keeping.parse_rules(request.rules) if request.rules else None

        def act(connection: Connection) -> pb.PlanForgettingResponse:
            machine = _machine(connection, operator, request.machine_id)
            tags: dict[str, list[str]] = {}
            for row in connection.execute(
                select(point_tags)
                .where(point_tags.c.machine_id == machine.id)
                .order_by(point_tags.c.tag)
            ):
                tags.setdefault(row.point_id, []).append(row.tag)
            plan = keeping.plan(connection, machine, clock.now(), instead)
            return _plan_to_pb(plan, tags, keeping.forgotten_of(connection, machine))

        return await self._db.read(act)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        """See `protocol/v1/retention.proto`."""
        named = list(request.point_ids)
        if not named:
            operator = operator_calling()
            machine = await self._db.read(lambda c: _machine(c, operator, request.machine_id))
            if request.dry_run:
                made = await self._db.read(lambda c: keeping.plan(c, machine, clock.now()))
                return pb.ForgetResponse(point_ids=[one.point for one in made.doomed])
            gone = await self._keeper.forget_by_rules(machine, actor=_actor(operator))
            return pb.ForgetResponse(point_ids=gone)

        def act(connection: Connection, machine: freezing.Machine, actor: str) -> list[str]:
            at = clock.now()
            if request.dry_run:
                return keeping.check_forgetting(connection, machine, named, at)
            return keeping.forget_named(
                connection, machine, named, request.reason, actor=actor, at=at
            )

        return pb.ForgetResponse(point_ids=await self._act(request.machine_id, act))

    async def BringBack(
        self, request: pb.BringBackRequest, context: Context
    ) -> pb.BringBackResponse:
        """See `protocol/v1/retention.proto`."""
        await self._act(
            request.machine_id,
            lambda c, m, a: keeping.bring_back(c, m, request.point_id, actor=a, at=clock.now()),
        )
        return pb.BringBackResponse()

    async def HoldPoint(
        self, request: pb.HoldPointRequest, context: Context
    ) -> pb.HoldPointResponse:
        """See `protocol/v1/retention.proto`."""
        await self._act(
            request.machine_id,
            lambda c, m, a: keeping.hold(
                c, m, request.point_id, request.reason, actor=a, at=clock.now()
            ),
        )
        return pb.HoldPointResponse()

    async def ReleasePoint(
        self, request: pb.ReleasePointRequest, context: Context
    ) -> pb.ReleasePointResponse:
        """See `protocol/v1/retention.proto`."""
        await self._act(
            request.machine_id,
            lambda c, m, a: keeping.release(
                c, m, request.point_id, request.reason, actor=a, at=clock.now()
            ),
        )
        return pb.ReleasePointResponse()

    async def TagPoint(self, request: pb.TagPointRequest, context: Context) -> pb.TagPointResponse:
        """See `protocol/v1/retention.proto`."""
        tags = await self._act(
            request.machine_id,
            lambda c, m, a: keeping.tag(
                c, m, request.point_id, request.add, request.remove, actor=a, at=clock.now()
            ),
        )
        return pb.TagPointResponse(tags=tags)

    async def Unfreeze(self, request: pb.UnfreezeRequest, context: Context) -> pb.UnfreezeResponse:
        """See `protocol/v1/retention.proto`."""
        await self._act(
            request.machine_id,
            lambda c, m, a: freezing.unfreeze(c, m, request.reason, actor=a, at=clock.now()),
        )
        return pb.UnfreezeResponse()

    async def Collect(
        self, request: pb.CollectRequest, context: Context
    ) -> AsyncIterator[pb.CollectResponse]:
        """See `protocol/v1/retention.proto`."""
        operator = operator_calling()

        wanted = await self._db.read(lambda c: tenants_meant(c, operator, request.tenant_id))
        for tenant in wanted:
            collecting = self._keeper.collect(
                tenant,
                dry_run=request.dry_run,
                accept_losses=request.accept_losses,
                bytes_per_s=request.bytes_per_s,
            )
            async with aclosing(collecting):
                async for progress in collecting:
                    yield _progress_to_pb(progress)

    async def _act(
        self, machine_id: str, act: Callable[[Connection, freezing.Machine, str], T]
    ) -> T:
        operator = operator_calling()
        return await self._db.write(
            lambda c: act(c, _machine(c, operator, machine_id), _actor(operator))
        )


def _machine(
    connection: Connection, operator: OperatorIdentity, machine_id: str
) -> freezing.Machine:
    row = require_machine(connection, operator, machine_id)
    return freezing.Machine(row.id, row.tenant_id)


def _actor(operator: OperatorIdentity) -> str:
    return f"operator/{operator.name}"


def _plan_to_pb(
    plan: keeping.Plan, tags: dict[str, list[str]], forgotten: list[str]
) -> pb.PlanForgettingResponse:
    return pb.PlanForgettingResponse(
        rules="" if plan.rules is None else msgspec.json.encode(plan.rules).decode(),
        inherited=plan.is_inherited,
        points=[
            pb.PointVerdict(
                point_id=one.point,
                received_at_ms=to_ms(one.received_at),
                kept=one.is_kept,
                reasons=one.reasons,
                tags=tags.get(one.point, ()),
            )
            for one in plan.verdicts
        ],
        frozen=() if plan.alarm is None else plan.alarm.reasons,
        frozen_point_id="" if plan.alarm is None else plan.alarm.point,
        forgotten=forgotten,
    )


def _progress_to_pb(progress: Progress) -> pb.CollectResponse:
    done = progress.done
    return pb.CollectResponse(
        tenant_id=progress.tenant,
        phase=progress.step.phase,
        done=progress.step.done,
        finished=progress.is_finished,
        purged_points=done.purged_points,
        chunks=done.chunks,
        condemned_chunks=done.condemned_chunks,
        condemned_bytes=done.condemned_bytes,
        dead_bytes=done.dead_bytes,
        freed_bytes=max(done.swept.freed_bytes, 0),
        dropped_packs=done.swept.dropped_packs,
        rewritten_packs=done.swept.rewritten_packs,
        missing_chunks=done.missing_chunks,
    )
