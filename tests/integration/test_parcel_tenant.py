"""Files on their way belong to a tenant that there is: what fills a disk is counted by tenant."""

from __future__ import annotations

import grpc
import pytest

from controller import clock
from controller.parcels.kept import TOP
from protocol.errors import Code
from protocol.v1 import parcel_pb2 as pb
from protocol.v1.parcel_pb2_grpc import ParcelServiceStub
from tests.integration.conftest import Installation
from tests.integration.test_link import code_of


async def test_nobody_opens_a_parcel_for_a_tenant_that_is_not_there(
    installation: Installation,
) -> None:
    stub = ParcelServiceStub(installation.admin())
    tenant = await installation.add_tenant()

    def parcel(named: str) -> pb.OpenParcelRequest:
        machines = [clock.new_id("mc")]
        return pb.OpenParcelRequest(
            tenant_id=named,
            parcel_id=clock.new_id("pc"),
            machine_ids=machines,
            max_bytes=1,
            keep_s=60,
        )

    for named in (clock.new_id("tn"), "", "../..", tenant[:-1]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.OpenParcel(parcel(named))
        assert code_of(caught.value) is Code.NOT_FOUND
    assert not list(installation.controller.parts.store.list(TOP))
    await stub.OpenParcel(parcel(tenant))
    assert list(installation.controller.parts.store.list(TOP))
