"""What stands in the way of a second controller, and how a refused start ends."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from controller import clock
from controller.app import Controller
from controller.authority.init import initialise
from controller.config import ControllerHome
from protocol.errors import Code, SteadError
from protocol.v1 import proof_pb2, retention_pb2, vault_pb2
from protocol.v1.proof_pb2_grpc import ProofServiceStub
from protocol.v1.retention_pb2_grpc import RetentionServiceStub
from tests.integration.conftest import Installation
from tests.integration.test_vault_service import back_up, stub
from tests.unit.controller_vault.world import data_chunk

LONG, SHORT = timedelta(minutes=10), timedelta(seconds=1)
SLOWLY = 1
"""So many bytes a second: what is looked at takes hours."""


def another(home: Path, listen: str) -> None:
    initialise(
        home,
        names=["127.0.0.1"],
        now=clock.now(),
        listen=listen,
        enroll_listen="127.0.0.1:0",
    )


async def test_a_second_controller_on_the_port_fails_clearly_and_holds_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    home = tmp_path / "second"
    another(home, installation.link_address)
    with pytest.raises(SteadError) as caught:
        await Controller.serve(home)
    assert caught.value.code is Code.PRECONDITION
    assert installation.link_address in str(caught.value)
    free = msgspec.structs.replace(
        ControllerHome(home / "controller").load_settings(), listen="127.0.0.1:0"
    )
    await (await Controller.serve(home, free)).stop()


async def test_a_second_controller_on_the_home_is_told_which_process_has_it(
    installation: Installation,
) -> None:
    with pytest.raises(SteadError) as caught:
        await Controller.serve(installation.home)
    assert caught.value.code is Code.LOCKED
    assert str(os.getpid()) in str(caught.value)


async def test_where_nothing_was_made_serving_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SteadError) as caught:
        await Controller.serve(tmp_path)
    assert caught.value.code is Code.PRECONDITION
    assert "stead controller init" in str(caught.value)


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":7443", "a:b"])
async def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    another(tmp_path, listen)
    with pytest.raises(SteadError) as caught:
        await Controller.serve(tmp_path)
    assert caught.value.code is Code.INVALID
    assert listen in str(caught.value)


async def test_stopping_waits_for_no_stream_that_is_under_way(installation: Installation) -> None:
    """A backup, a scrub and a collection are cut at once, however long short calls may take."""
    machine = await installation.new_machine(await installation.add_tenant())
    vault = stub(installation, machine)
    await back_up(vault, machine)
    begun = await vault.Begin(vault_pb2.BeginRequest(point_id=clock.new_id("rp")))
    upload = vault.Put()
    await upload.write(
        vault_pb2.PutRequest(
            session_id=begun.session_id, chunks=[data_chunk(os.urandom(1000))[1]], flush=True
        )
    )
    await upload.read()
    scrub = ProofServiceStub(installation.admin()).ScrubVault(
        proof_pb2.ScrubVaultRequest(tenant_id=machine.tenant, bytes_per_s=SLOWLY)
    )
    collection = RetentionServiceStub(installation.admin()).Collect(
        retention_pb2.CollectRequest(tenant_id=machine.tenant, bytes_per_s=SLOWLY)
    )
    await collection.read()
    calls = (upload, scrub, collection)
    assert not any(call.done() for call in calls)
    async with asyncio.timeout(60):
        await installation.controller.stop(LONG)
    installation.controller = await Controller.serve(installation.home)


async def test_a_restore_that_reads_no_further_is_waited_for_as_long_as_a_short_call(
    installation: Installation,
) -> None:
    """What was written to it waits for its reader, and gRPC has no way to end it alone."""
    machine = await installation.new_machine(await installation.add_tenant())
    vault = stub(installation, machine)
    _, ids, _ = await back_up(vault, machine)
    restore = vault.Get(vault_pb2.GetRequest(chunk_ids=ids * 10))
    await restore.read()
    assert not restore.done()
    began = time.monotonic()
    async with asyncio.timeout(60):
        await installation.controller.stop(SHORT)
    assert time.monotonic() - began >= SHORT.total_seconds()
    installation.controller = await Controller.serve(installation.home)
