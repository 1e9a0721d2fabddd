"""Copies of machines: found out at Hello, over real TLS, and healed as far as is safe."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.keys import new_key
from protocol.codec import REVISION, encode_holder, to_ms
from protocol.errors import Code
from protocol.holder import METADATA_KEY, Holder
from protocol.identity import rekey_bytes
from protocol.ids import MachineId
from protocol.v1 import enrollment_pb2, link_pb2, operator_pb2, vault_pb2
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from protocol.v1.link_pb2_grpc import LinkServiceStub
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from tests.faults.on_hardware import hardware_named
from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.conftest import Enrolled, Installation, signing_request
from tests.integration.refusal import refused

HERE, THERE = hardware_named("here"), hardware_named("there")


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    token = await installation.add_token(await installation.add_tenant(), tags=("web",))
    return await installation.enroll(token)


@asynccontextmanager
async def hello(
    installation: Installation,
    machine: Enrolled,
    token: bytes = b"",
    hardware: bytes = HERE,
    *,
    revision: int = REVISION,
    keep: bool = True,
) -> AsyncIterator[tuple[Any, bytes]]:
    """A link of a holder: the call and the token of Welcome, acknowledged if it shall be."""
    metadata = ((METADATA_KEY, encode_holder(Holder(token, hardware))),)
    call: Any = LinkServiceStub(installation.machine_channel(machine)).Connect(metadata=metadata)
    try:
        greeting = link_pb2.Hello(
            revision=revision, agent_time_ms=to_ms(clock.now()), agent_version="0", hostname="web"
        )
        await call.write(link_pb2.ConnectRequest(hello=greeting))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            await call
        next_token = answer.welcome.ratchet
        if keep and next_token:
            kept = link_pb2.RatchetKept(token=next_token)
            await call.write(link_pb2.ConnectRequest(ratchet_kept=kept))
            await until_taken(call)
        yield call, next_token
    finally:
        call.cancel()


async def until_taken(call: Any) -> None:
    """Messages are taken in order: an answered heartbeat says that those before it are."""
    await call.write(link_pb2.ConnectRequest(heartbeat=link_pb2.Heartbeat()))
    while (await call.read()).WhichOneof("message") != "heartbeat_acknowledged":
        pass


async def connect(*arguments: Any, **named: Any) -> bytes:
    """The next token of a link that is over again."""
    async with hello(*arguments, **named) as (_, token):
        return token


async def gone(installation: Installation, machine: Enrolled) -> None:
    """Wait until the controller holds no link of the machine."""
    async with asyncio.timeout(20):
        while installation.controller.parts.presence.linked(machine.id):
            await asyncio.sleep(0.01)


async def shown(installation: Installation) -> dict[str, operator_pb2.Machine]:
    stub = MachineServiceStub(installation.admin())
    answer = await stub.ListMachines(operator_pb2.ListMachinesRequest())
    return {one.machine_id: one for one in answer.machines}


async def events(installation: Installation, machine: Enrolled) -> list[str]:
    return [entry.event for entry in await installation.audit(machine.tenant)]


async def approve(installation: Installation, machine: str, *, older: bool = False) -> None:
    request = operator_pb2.ApproveMachineRequest(machine_id=machine, older=older)
    await MachineServiceStub(installation.admin()).ApproveMachine(request)


async def rekey(
    installation: Installation,
    machine: Enrolled,
    key: ec.EllipticCurvePrivateKey,
    token: bytes,
    hardware: bytes = THERE,
) -> enrollment_pb2.RekeyResponse:
    der, at = machine.chain[0].public_bytes(Encoding.DER), to_ms(clock.now())
    csr = signing_request(key)
    request = enrollment_pb2.RekeyRequest(
        certificate=der,
        requested_at_ms=at,
        signature=machine.key.sign(rekey_bytes(der, csr, at), ec.ECDSA(SHA256())),
        signing_request=csr,
        holder=encode_holder(Holder(token, hardware)),
        hostname="web-01",
    )
    return await EnrollmentServiceStub(installation.enrollment_channel()).Rekey(request)


def as_machine(machine: Enrolled, answer: enrollment_pb2.RekeyResponse, key: Any) -> Enrolled:
    chain = tuple(x509.load_der_x509_certificate(der) for der in answer.certificate_chain)
    return Enrolled(
        MachineId(answer.machine_id), machine.tenant, answer.name, key, chain, machine.answer
    )


def points(installation: Installation, machine: Enrolled, token: bytes = b"") -> Any:
    stub = VaultServiceStub(installation.machine_channel(machine))
    shown = ((METADATA_KEY, encode_holder(Holder(token))),) if token else ()
    return stub.ListPoints(vault_pb2.ListPointsRequest(), metadata=shown)


async def test_a_copy_on_another_computer_becomes_a_machine_of_its_own(
    installation: Installation, machine: Enrolled
) -> None:
    old = await connect(installation, machine)
    await gone(installation, machine)
    newest = await connect(installation, machine, old)
    await gone(installation, machine)
    async with hello(installation, machine, newest) as (call, _):
        refusal = await refused(connect(installation, machine, old, THERE))
        assert refusal.code == Code.CLONE
        key = new_key()
        answer = await rekey(installation, machine, key, old)
        assert (await rekey(installation, machine, key, old)).machine_id == answer.machine_id
        # The machine itself noticed nothing of it.
        await until_taken(call)
    seen = await shown(installation)
    clone = seen[answer.machine_id]
    assert (clone.state, clone.clone_of, list(clone.tags)) == ("waiting", machine.id, [])
    assert (seen[machine.id].state, list(seen[machine.id].tags)) == ("active", ["web"])
    told = await events(installation, machine)
    assert told.count("clone_refused") == 1
    assert told.count("clone_rekeyed") == 1

    new = as_machine(machine, answer, key)
    own = await connect(installation, new, b"", THERE)
    assert (await refused(points(installation, new))).code == Code.DENIED
    await installation.restart()
    assert (await refused(points(installation, new))).code == Code.DENIED
    await approve(installation, new.id)
    assert not (await points(installation, new, own)).points
    assert (await rekey(installation, machine, key, old)).machine_id == new.id
    assert not (await points(installation, new, own)).points


async def test_a_copy_that_speaks_first_gives_way_to_the_first_computer(
    installation: Installation, machine: Enrolled
) -> None:
    token = await connect(installation, machine)
    await gone(installation, machine)
    async with hello(installation, machine, token, THERE) as (_, copied):
        kept = await connect(installation, machine, token, HERE)
    await gone(installation, machine)
    assert (await refused(connect(installation, machine, copied, THERE))).code == Code.CLONE
    await connect(installation, machine, kept, HERE)
    told = await events(installation, machine)
    assert "machine_moved" in told
    assert "machine_returned" in told


@pytest.mark.parametrize("older", [False, True])
async def test_two_holders_that_nobody_can_tell_apart_are_parked_until_an_operator_decides(
    installation: Installation, machine: Enrolled, older: bool
) -> None:
    old = await connect(installation, machine)
    await gone(installation, machine)
    async with hello(installation, machine, old) as (call, newest):
        assert (await refused(connect(installation, machine, old, b""))).code == Code.PARKED
        # Who held the link is cut from it.
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    for token in (old, newest):
        assert (await refused(connect(installation, machine, token))).code == Code.PARKED
    assert (await refused(points(installation, machine))).code == Code.PARKED
    assert (await shown(installation))[machine.id].state == "parked"
    await installation.restart()
    assert (await refused(connect(installation, machine, newest))).code == Code.PARKED
    await approve(installation, machine.id, older=older)
    right, wrong = (old, newest) if older else (newest, old)
    await connect(installation, machine, right)
    await gone(installation, machine)
    assert (await refused(connect(installation, machine, wrong))).code == Code.CLONE
    again = await refused(approve(installation, machine.id))
    assert again.code == Code.PRECONDITION
    assert {"machine_parked", "machine_approved"} <= set(await events(installation, machine))


async def test_a_token_that_was_kept_and_not_acknowledged_is_as_good(
    installation: Installation, machine: Enrolled
) -> None:
    token = await connect(installation, machine)
    for _ in range(3):
        await gone(installation, machine)
        shown_next = await connect(installation, machine, token, keep=False)
        await gone(installation, machine)
        # The answer was lost: the same token once more, and the same next one.
        assert await connect(installation, machine, token, keep=False) == shown_next
        token = shown_next
    quiet = {"tenant_added", "token_created", "machine_enrolled"}
    assert set(await events(installation, machine)) == quiet


async def test_who_copied_a_disk_and_makes_no_link_is_found_out_by_other_calls(
    installation: Installation, machine: Enrolled
) -> None:
    assert not (await points(installation, machine)).points  # of a release without the ratchet
    copied = await connect(installation, machine)
    await gone(installation, machine)
    refusal = await refused(points(installation, machine))
    assert refusal.code == Code.UPGRADE_REQUIRED
    for nonsense in (b"x", bytes(24), bytes(100)):
        assert (await refused(points(installation, machine, nonsense))).code == Code.CLONE
    assert not (await points(installation, machine, copied)).points
    newest = await connect(installation, machine, copied)
    await gone(installation, machine)
    # One that was made as the token moved on.
    assert not (await points(installation, machine, copied)).points
    # A token that is handed out and not acknowledged is good as well.
    ahead = await connect(installation, machine, newest, keep=False)
    assert not (await points(installation, machine, ahead)).points
    await gone(installation, machine)
    newest = await connect(installation, machine, ahead)
    for _ in range(2):
        for _ in range(3):
            assert (await refused(points(installation, machine, copied))).code == Code.CLONE
        assert not (await points(installation, machine, newest)).points
        await installation.restart()
    told = await installation.audit(machine.tenant)
    shown = [json.loads(entry.body)["shown"] for entry in told if entry.event == "old_token_shown"]
    # Once for each that was shown, in each run of the controller.
    assert shown.count(1) == 2
    # The machine itself noticed nothing of it.
    await connect(installation, machine, newest)


async def test_only_a_clone_becomes_a_new_machine_and_not_many(
    installation: Installation, machine: Enrolled
) -> None:
    newest = await connect(installation, machine)
    refusal = await refused(rekey(installation, machine, new_key(), newest, HERE))
    assert refusal.code == Code.PRECONDITION
    keys = [new_key() for _ in range(8)]
    answers = [await rekey(installation, machine, key, b"") for key in keys]
    assert (await refused(rekey(installation, machine, new_key(), b""))).code == Code.LIMIT
    # Nor by way of its clones: those are approved first.
    clone = as_machine(machine, answers[0], keys[0])
    await connect(installation, clone, b"", THERE)
    refusal = await refused(rekey(installation, clone, new_key(), b"", HERE))
    assert refusal.code == Code.PRECONDITION


async def test_an_agent_of_before_is_welcome_until_the_machine_has_a_token(
    installation: Installation, machine: Enrolled
) -> None:
    assert await connect(installation, machine, revision=3) == b""
    await gone(installation, machine)
    await connect(installation, machine, keep=False)
    await gone(installation, machine)
    await connect(installation, machine, revision=3)
    await gone(installation, machine)
    await connect(installation, machine)
    refusal = await refused(connect(installation, machine, revision=3))
    assert refusal.code == Code.UPGRADE_REQUIRED


class AgentOn(AgentProcess):
    """An agent on a computer of this name."""

    def __init__(self, directory: Path, computer: str) -> None:
        super().__init__(directory)
        self.computer = computer

    def _argv(self, *words: str) -> list[str]:
        wrapped = ["-m", "tests.faults.on_hardware", self.computer]
        return [sys.executable, *wrapped, "--home", str(self.directory), *words]


async def test_a_snapshot_that_was_put_back_and_a_copied_disk_heal_without_hands(
    installation: Installation, tmp_path: Path
) -> None:
    tenant = await installation.add_tenant()
    agent = AgentOn(tmp_path / "machine", "here")
    machine = await agent.enroll(await token_text(installation, tenant))
    await agent.start()
    await agent.until_status(link="connected")
    await agent.stop()
    shutil.copytree(agent.directory, tmp_path / "snapshot")
    shutil.copytree(agent.directory, tmp_path / "copy")
    await agent.start()
    await agent.until_status(link="connected")
    await agent.stop()

    shutil.rmtree(agent.directory)
    shutil.move(tmp_path / "snapshot", agent.directory)
    await agent.start()
    await agent.until_status(link="connected", machine=machine.machine)

    copy = AgentOn(tmp_path / "copy", "there")
    await copy.start()
    became = await copy.until(
        lambda: copy.identity.machine if copy.identity.machine != machine.machine else None
    )
    await copy.until_status(link="connected", machine=became)
    await copy.stop()
    await agent.stop()
    seen = await shown(installation)
    assert (seen[became].state, seen[became].clone_of) == ("waiting", machine.machine)
    told = [entry.event for entry in await installation.audit(tenant)]
    assert told.count("machine_rolled_back") == 1
    assert told.count("clone_rekeyed") == 1
    assert "machine_parked" not in told
