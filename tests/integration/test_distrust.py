"""An authority whose key was stolen: the root ends it, and machines come back by themselves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.tasks.revoked import take_revocations
from controller import clock
from controller.app import Controller
from controller.authority.certificates import Issuer, certify_machine
from controller.authority.keys import new_key, new_serial
from protocol.codec import encode_holder, encode_revocations, encode_signed_revocations, to_ms
from protocol.errors import Code, SteadError
from protocol.holder import Holder
from protocol.identity import ControllerIdentity, MachineIdentity, key_hash, rekey_bytes
from protocol.ids import MachineId
from protocol.revocation import (
    NO_REVOCATIONS,
    DistrustedAuthority,
    plan_distrust,
    sign_revocations,
)
from protocol.tls import find_anchor
from protocol.v1 import enrollment_pb2
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from tests.fakes.link_server import Authority, LinkServer, Realm, certify, fresh
from tests.integration.agent_process import AgentProcess, idle_agent, token_text
from tests.integration.commands import stead
from tests.integration.conftest import Enrolled, Installation, signing_request
from tests.integration.refusal import refused
from tests.integration.test_clone import connect, hello, points
from tests.integration.test_enrollment import renew

__all__ = ["idle_agent"]


async def distrust(installation: Installation) -> None:
    """Replace the authority, and distrust the one before, as an administrator types it."""
    for command in ("rotate-authority", "distrust-authority --former"):
        root = str(installation.made.root.path)
        await stead(installation, "controller", *command.split(), "--root", root, "--yes")


def certified(stolen: Issuer, machine: Enrolled, name: MachineId | None = None) -> Enrolled:
    """The machine, or one that never was, as a thief of this authority plays it."""
    key = new_key()
    leaf = certify_machine(
        stolen,
        key.public_key(),
        MachineIdentity(machine.tenant, name or machine.id),
        serial=new_serial(),
        now=clock.now(),
    )
    return replace(machine, key=key, chain=(leaf, stolen.certificate))


async def rekeyed(installation: Installation, thief: Enrolled) -> None:
    der, at = thief.chain[0].public_bytes(Encoding.DER), to_ms(clock.now())
    csr = signing_request(new_key())
    request = enrollment_pb2.RekeyRequest(
        certificate=der,
        requested_at_ms=at,
        signature=thief.key.sign(rekey_bytes(der, csr, at), ec.ECDSA(SHA256())),
        signing_request=csr,
        holder=encode_holder(Holder(b"", bytes(32))),
    )
    await EnrollmentServiceStub(installation.enrollment_channel()).Rekey(request)


async def test_who_stole_an_authority_is_cut_and_gets_nowhere(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    stolen = installation.controller.parts.authority.issuing
    thief, stranger = certified(stolen, machine), certified(stolen, machine, MachineId(fresh("mc")))
    for name, code in ((thief, Code.UNAUTHENTICATED), (stranger, Code.UNKNOWN_MACHINE)):
        assert (await refused(connect(installation, name))).code is code
        assert (await refused(points(installation, name))).code is code
    async with hello(installation, machine) as (call, token):
        await distrust(installation)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    for _ in range(2):
        for name in (thief, machine):
            assert (await refused(connect(installation, name))).code is Code.DISTRUSTED
            assert (await refused(points(installation, name))).code is Code.DISTRUSTED
        # The machine is known by its key, which the thief has not got.
        refusal = await refused(renew(installation, thief.chain[0], thief.key))
        assert refusal.code is Code.UNAUTHENTICATED
        assert (await refused(rekeyed(installation, thief))).code is Code.UNAUTHENTICATED
        await installation.restart()
    answer = await renew(installation, machine.chain[0], machine.key)
    chain = tuple(map(x509.load_der_x509_certificate, answer.certificate_chain))
    await connect(installation, replace(machine, chain=chain), token)
    told = [entry.event for entry in await installation.audit()]
    assert told.count("revocations_published") == 1


async def test_machines_that_are_linked_and_machines_that_are_away_come_back_by_themselves(
    installation: Installation, tmp_path: Path
) -> None:
    tenant = await installation.add_tenant()
    token = await token_text(installation, tenant, uses=2)
    linked, away = AgentProcess(tmp_path / "linked"), AgentProcess(tmp_path / "away")
    try:
        for agent in (linked, away):
            await agent.enroll(token)
            await agent.start()
            await agent.until_status(link="connected")
        await away.stop()
        first = installation.controller.parts.authority.issuing.certificate
        await distrust(installation)
        second = installation.controller.parts.authority.issuing.certificate
        await away.start()
        for agent in (linked, away):

            def renewed(home: AgentHome = agent.home) -> bool | None:
                issuing = x509.load_pem_x509_certificates(home.chain.read_bytes())[1]
                return (issuing == second and home.revocations.exists()) or None

            await agent.until(renewed)
            await agent.until_status(link="connected")
            # It goes on with what it has learned.
            await agent.stop()
            await agent.start()
            await agent.until_status(link="connected")
            code, out, _ = await agent.command("doctor", "--output", "json")
            assert code == 0, out
        assert first != second
    finally:
        for agent in (linked, away):
            if agent.alive:
                await agent.stop()


async def test_the_command_names_authorities_and_spares_the_present_one(
    installation: Installation,
) -> None:
    root = ("--root", str(installation.made.root.path), "--yes")
    words = ("controller", "authorities", "--output", "json")
    [present] = json.loads(await stead(installation, *words))
    assert present["state"] == "present"
    name = present["authority"]
    said = await stead(
        installation, "controller", "distrust-authority", name, *root, code=1, error=True
    )
    assert "rotate-authority" in said
    await stead(installation, "controller", "distrust-authority", "nobody", *root, code=1)
    await stead(installation, "controller", "distrust-authority", name, "--former", code=2)
    await stead(installation, "controller", "rotate-authority", *root)
    distrusting = ("controller", "distrust-authority", "--former", *root, "--output", "json")
    planned = json.loads(await stead(installation, *distrusting, "--dry-run"))
    assert {one["authority"]: one["state"] for one in planned}[name] == "distrusted"
    # A controller that hides a former authority keeps it from nobody: the root has noted it.
    installation.controller.parts.authority.former = ()
    await stead(installation, *distrusting)
    assert "No authority is left" in await stead(installation, *distrusting, error=True)
    # What is typed from now on trusts the new authority alone.
    await stead(installation, "machine", "ls")
    again = ("operator", "revocations")
    assert "version 1" in await stead(installation, *again, error=True)


async def test_a_controller_that_was_put_back_serves_once_its_authority_is_another_one(
    installation: Installation,
) -> None:
    home = installation.controller.parts.home
    before = {path: path.read_bytes() for path in (home.issuing, home.issuing_key)}
    await distrust(installation)
    await installation._close_channels()
    await installation.controller.stop()
    for path, content in before.items():
        path.write_bytes(content)
    with pytest.raises(SteadError) as caught:
        await Controller.serve(installation.home)
    assert caught.value.code is Code.DISTRUSTED
    root = ("--root", str(installation.made.root.path), "--yes")
    await stead(installation, "controller", "rotate-authority", "--here", *root)
    installation.controller = await Controller.serve(installation.home)
    # Of the one that was put back over, the root's directory knows.
    await stead(installation, "controller", "distrust-authority", "--former", *root)
    known = json.loads(await stead(installation, "controller", "authorities", "--output", "json"))
    states = [one["state"] for one in known]
    assert states[0] == "present"
    assert set(states[1:]) == {"distrusted"}
    kept = x509.load_pem_x509_certificates(installation.made.root.authorities.read_bytes())
    assert len(kept) == 3
    machine = await installation.new_machine(await installation.add_tenant())
    await connect(installation, machine)


def distrusting(realm: Realm, *stolen: Authority) -> bytes:
    """The list of a realm's root that names these authorities."""
    now = datetime.now(UTC).replace(microsecond=0)
    gone = [DistrustedAuthority(key_hash(one.key.public_key()), "stolen", now) for one in stolen]
    data = encode_revocations(plan_distrust(NO_REVOCATIONS, gone, now=now))
    return encode_signed_revocations(sign_revocations(data, realm.root.key))


async def test_a_wrong_clock_is_not_taken_for_a_wrong_controller() -> None:
    realm = Realm()
    stolen = certify("stolen", by=realm.root, ca=True)
    named = {key_hash(stolen.key.public_key())}
    async with LinkServer(realm) as server:
        for years, code in ((0, None), (3, Code.CLOCK_SKEW), (-3, Code.CLOCK_SKEW)):
            now = datetime.now(UTC) + timedelta(days=365 * years)
            looking = asyncio.to_thread(
                find_anchor, server.address, realm.root.certificate, named, now=now
            )
            if code is None:
                assert await looking == realm.issuing.certificate
                continue
            with pytest.raises(SteadError) as caught:
                await looking
            assert caught.value.code is code
            assert "set the clock" in str(caught.value)


@pytest.mark.parametrize(
    ("pretends", "told"),
    [("itself", "distrusted"), ("the good one", "unavailable"), ("nobody", "unauthenticated")],
)
async def test_an_agent_speaks_to_no_controller_of_a_distrusted_authority(
    agent: AgentProcess, pretends: str, told: str
) -> None:
    realm = Realm()
    stolen = certify("stolen", by=realm.root, ca=True)
    good, good_server = realm.issuing, realm.server
    shown = {"itself": stolen.certificate, "the good one": good.certificate, "nobody": None}
    realm.issuing = stolen
    realm.server = certify(
        "controller",
        by=stolen,
        identity=ControllerIdentity(),
        root=realm.root.certificate,
        shown=shown[pretends],
    )
    async with LinkServer(realm) as impostor:
        realm.issuing, realm.server = good, good_server
        async with LinkServer(realm) as controller:
            realm.furnish(agent.home, impostor.address, impostor.open_address)
            take_revocations(agent.home, realm.root.certificate, distrusting(realm, stolen))
            await agent.start()
            await agent.until_status(code=told)
            assert impostor.visits.empty()
            await agent.stop()
            settings = agent.home.settings.read_text()
            settings = settings.replace(impostor.address, controller.address)
            agent.home.settings.write_text(settings)
            await agent.start()
            await controller.visit()
            assert impostor.visits.empty()
