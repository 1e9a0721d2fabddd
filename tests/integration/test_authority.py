"""Certificates that ended and authorities that changed: nobody has to go to a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from controller import clock
from controller.authority.certificates import certify_machine, make_issuing
from controller.authority.keys import new_serial
from protocol.errors import Code
from protocol.identity import MachineIdentity
from protocol.tls import chain_pem, shown_certificate
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import ControllerServiceStub, MachineServiceStub
from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.conftest import Enrolled, Installation, install
from tests.integration.refusal import refused
from tests.integration.test_clone import connect, gone
from tests.integration.test_enrollment import renew


@pytest.fixture
async def old_installation(tmp_path: Path) -> AsyncIterator[Installation]:
    running = await install(tmp_path / "home", age=timedelta(days=500))
    yield running
    await running.close()


async def rotate(installation: Installation) -> x509.Certificate:
    """As `stead controller rotate-authority` does it."""
    stub = ControllerServiceStub(installation.admin())
    prepared = await stub.PrepareAuthority(operator_pb2.PrepareAuthorityRequest())
    key = load_der_public_key(prepared.public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    made = make_issuing(installation.root_issuer, key, serial=new_serial(), now=clock.now())
    request = operator_pb2.InstallAuthorityRequest(certificate=made.public_bytes(Encoding.DER))
    await stub.InstallAuthority(request)
    return made


def ended(installation: Installation, machine: Enrolled, days: int) -> x509.Certificate:
    """The machine's certificate as the present authority made it, over for so long."""
    return certify_machine(
        installation.controller.parts.authority.issuing,
        machine.key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now() - timedelta(days=days),
        lifetime=timedelta(),
    )


async def test_a_change_of_the_authority_breaks_nothing(old_installation: Installation) -> None:
    installation = old_installation
    machine = await installation.new_machine(await installation.add_tenant())
    drawer = ended(installation, machine, 200)
    first = await rotate(installation)
    assert shown_certificate(installation.link_address).issuer == first.subject
    token = await connect(installation, machine)
    await gone(installation, machine)
    second = await rotate(installation)
    await installation.restart()
    token = await connect(installation, machine, token)
    answer = await renew(installation, drawer, machine.key)
    leaf, issuing = map(x509.load_der_x509_certificate, answer.certificate_chain)
    assert issuing == second
    renewed = Enrolled(
        machine.id, machine.tenant, machine.name, machine.key, (leaf, issuing), machine.answer
    )
    await gone(installation, machine)
    await connect(installation, renewed, token)
    status = await ControllerServiceStub(installation.admin()).Status(operator_pb2.StatusRequest())
    assert status.authority_ends_at_ms == int(second.not_valid_after_utc.timestamp() * 1000)
    told = [entry.event for entry in await installation.audit()]
    assert told.count("authority_rotated") == 2


async def test_who_was_shut_out_while_away_reads_why(old_installation: Installation) -> None:
    installation = old_installation
    tenant = await installation.add_tenant()
    stub = MachineServiceStub(installation.admin())
    for host, code in (("a", Code.REVOKED), ("b", Code.RETIRED)):
        machine = await installation.new_machine(tenant, host)
        drawer = ended(installation, machine, 200)
        if code is Code.REVOKED:
            gone_now = operator_pb2.RevokeMachineRequest(machine_id=machine.id)
            await stub.RevokeMachine(gone_now)
        else:
            await stub.RetireMachine(operator_pb2.RetireMachineRequest(machine_id=machine.id))
        assert (await refused(renew(installation, drawer, machine.key))).code == code
        assert (await refused(connect(installation, machine))).code == code
        await installation.restart()
        stub = MachineServiceStub(installation.admin())
        assert (await refused(connect(installation, machine))).code == code


async def test_a_retired_machine_leaves_its_id_its_key_and_its_name_taken(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    machine = await installation.new_machine(tenant)
    stub = MachineServiceStub(installation.admin())
    for _ in range(2):
        await stub.RetireMachine(operator_pb2.RetireMachineRequest(machine_id=machine.id))
    again = installation.enroll(await installation.add_token(tenant), "web-01", machine.key)
    assert (await refused(again)).code == Code.ALREADY_EXISTS
    new = await installation.new_machine(tenant)
    assert new.id != machine.id
    assert new.name != machine.name
    listed = await stub.ListMachines(operator_pb2.ListMachinesRequest())
    assert {one.machine_id: one.state for one in listed.machines} == {
        machine.id: "retired",
        new.id: "active",
    }
    told = [entry.event for entry in await installation.audit(tenant)]
    assert told.count("machine_retired") == 1


async def test_an_agent_out_of_the_drawer_comes_back_by_itself_after_two_hundred_days(
    old_installation: Installation, tmp_path: Path
) -> None:
    installation = old_installation
    tenant = await installation.add_tenant()
    agent = AgentProcess(tmp_path / "machine")
    identity = await agent.enroll(await token_text(installation, tenant))
    issuing = installation.controller.parts.authority.issuing
    present = x509.load_pem_x509_certificates(agent.home.chain.read_bytes())[0]
    key = present.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    leaf = certify_machine(
        issuing,
        key,
        identity,
        serial=new_serial(),
        now=clock.now() - timedelta(days=214),
        lifetime=timedelta(days=14),
    )
    agent.home.chain.write_bytes(chain_pem([leaf, issuing.certificate]))
    await rotate(installation)
    await agent.start()
    await agent.until_status(link="connected", machine=identity.machine)
    await agent.stop()
    renewed = [
        entry.body
        for entry in await installation.audit(tenant)
        if entry.event == "certificate_renewed"
    ]
    assert len(renewed) == 1
    assert f'"expired_for_s":{200 * 86400}'[:-5] in renewed[0]
