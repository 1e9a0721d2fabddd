"""Rules, forgetting and collection over real mutual TLS, as an operator's commands call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from protocol.errors import Code
from protocol.identity import Role
from protocol.v1 import retention_pb2 as pb
from protocol.v1 import vault_pb2
from protocol.v1.retention_pb2_grpc import RetentionServiceStub
from tests.integration.conftest import Installation
from tests.integration.test_vault_service import back_up, code_of, fetch, stub

if TYPE_CHECKING:
    from protocol.v1.retention_pb2_grpc import RetentionServiceAsyncStub


def retention_on(channel: grpc.aio.Channel) -> RetentionServiceAsyncStub:
    return RetentionServiceStub(channel)


async def test_points_are_planned_forgotten_collected_and_had_back(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    machine = await installation.new_machine(tenant)
    vault = stub(installation, machine)
    made = [await back_up(vault, machine) for _ in range(4)]
    points = [one[0].session_id.replace("vs_", "rp_") for one in made]
    retention = retention_on(installation.admin())
    rules = pb.SetRulesRequest(machine_id=machine.id, rules='{"last": 2, "floor": 2}')
    await retention.SetRules(rules)
    await retention.HoldPoint(
        pb.HoldPointRequest(machine_id=machine.id, point_id=points[0], reason="a lawsuit")
    )
    plan = await retention.PlanForgetting(pb.PlanForgettingRequest(machine_id=machine.id))
    assert [one.point_id for one in plan.points if not one.kept] == [points[1]]
    assert all(one.reasons for one in plan.points)
    for dry_run in (True, True, False):
        gone = await retention.Forget(pb.ForgetRequest(machine_id=machine.id, dry_run=dry_run))
        assert list(gone.point_ids) == [points[1]]
    collecting = retention.Collect(pb.CollectRequest(tenant_id=tenant))
    said = [answer async for answer in collecting]
    assert said[-1].finished
    assert said[-1].chunks == 4 * 31
    # All of it can still be had back, and so nothing of it was condemned.
    assert said[-1].condemned_chunks == 0
    await retention.BringBack(pb.BringBackRequest(machine_id=machine.id, point_id=points[1]))
    listed = await vault.ListPoints(vault_pb2.ListPointsRequest())
    assert {one.point_id for one in listed.points} == set(points)
    for _, ids, stored in made:
        assert await fetch(vault, ids) == stored


async def test_neither_machines_nor_readers_forget(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    auditor = installation.channel(*installation.operator("eve", Role.AUDITOR))
    for channel in (installation.machine_channel(machine), auditor):
        retention = retention_on(channel)
        for call in (
            retention.Forget(pb.ForgetRequest(machine_id=machine.id)),
            retention.SetRules(pb.SetRulesRequest(machine_id=machine.id)),
            retention.Unfreeze(pb.UnfreezeRequest(machine_id=machine.id, reason="x")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert code_of(refused.value) is Code.DENIED
