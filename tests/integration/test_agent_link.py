"""The link in bad weather: a real agent against a controller that does what the test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, identity_of, renewal_bytes
from protocol.ids import MachineId, OrderId
from protocol.order import Order, sign
from protocol.outcome import OutcomeState
from protocol.sealing import check_sealing_proof
from protocol.v1 import enrollment_pb2, link_pb2
from tests.fakes.link_server import DAY, TENANT_KEY, LinkServer, Realm, certify_key, fresh, new_task
from tests.integration.agent_process import AgentProcess, idle_agent

__all__ = ["idle_agent"]


@pytest.fixture
async def server() -> AsyncIterator[LinkServer]:
    async with LinkServer(Realm(), heartbeat_s=1) as running:
        yield running


def envelope_for(server: LinkServer, machine: MachineIdentity, *argv: str) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    order = Order(
        id=OrderId(fresh("or")),
        tenant=machine.tenant,
        machines=(machine.machine,),
        action=RunProgram(argv),
        issued_at=now,
        not_before=now,
        deliver_by=now + timedelta(hours=1),
        timeout=timedelta(minutes=1),
    )
    ann = server.realm.operator()
    return encode_envelope(sign(encode_order(order), key=ann.key, certificate=ann.certificate))


async def test_hello_proves_the_sealing_key_and_heartbeats_follow(
    server: LinkServer, agent: AgentProcess
) -> None:
    machine = server.realm.furnish(agent.home, server.address)
    await agent.start()
    visit = await server.visit()
    hello = visit.hello
    check_sealing_proof(TENANT_KEY.secret, machine.machine, hello.sealing_key, hello.sealing_proof)
    await server.until(lambda: len(server.heartbeats) >= 2)
    await agent.until_status(link="connected", journal="ok")


@pytest.mark.parametrize(
    ("code", "usual"),
    [
        (Code.REVOKED, timedelta(minutes=5)),
        (Code.UNKNOWN_MACHINE, timedelta(minutes=5)),
        (Code.PARKED, timedelta(minutes=5)),
        (Code.RETIRED, timedelta(hours=1)),
    ],
    ids=["revoked", "unknown", "parked", "retired"],
)
async def test_a_machine_that_is_not_wanted_parks_and_says_why(
    server: LinkServer, agent: AgentProcess, code: Code, usual: timedelta
) -> None:
    server.realm.furnish(agent.home, server.address)
    server.refuse = SteadError("go away", code=code)
    await agent.start()
    said = await agent.until_status(link="parked", code=code)
    assert said["reason"] == "go away"
    wait = datetime.fromisoformat(said["again_at"]) - datetime.now(UTC)
    assert 0.6 * usual < wait < 1.4 * usual
    exit_code, out, _ = await agent.command("status", "--output", "json")
    assert exit_code == 6
    assert json.loads(out)["link"] == "parked"
    assert agent.alive


async def test_a_revocation_in_the_middle_of_a_link_parks_too(
    server: LinkServer, agent: AgentProcess
) -> None:
    server.realm.furnish(agent.home, server.address)
    await agent.start()
    visit = await server.visit()
    server.refuse = SteadError("revoked", code=Code.REVOKED)
    visit.end(server.refuse)
    await agent.until_status(link="parked", code="revoked")


async def test_after_drain_the_agent_comes_back_within_the_window(
    server: LinkServer, agent: AgentProcess
) -> None:
    server.realm.furnish(agent.home, server.address)
    await agent.start()
    visit = await server.visit()
    visit.say(drain=link_pb2.Drain(reconnect_within_s=2))
    await server.visit(wait=4)


async def test_a_message_of_an_unknown_kind_ends_the_link_with_a_reason(
    server: LinkServer, agent: AgentProcess
) -> None:
    server.realm.furnish(agent.home, server.address)
    await agent.start()
    visit = await server.visit()
    strange = link_pb2.ConnectResponse()
    strange.MergeFromString(b"\xfa\x01\x03abc")
    visit.to_send.put_nowait(strange)
    await server.visit()
    reasons = [said for said in agent.events() if said["event"] == "link_lost"]
    assert reasons[0]["code"] == "unknown_field"


async def test_an_outcome_is_told_again_on_every_link_until_it_is_acknowledged(
    server: LinkServer, agent: AgentProcess
) -> None:
    server.acknowledge = False
    machine = server.realm.furnish(agent.home, server.address)
    await agent.start()
    task = new_task()
    visit = await server.visit()
    visit.offer(task, envelope_for(server, machine, "echo", "hello"))
    first = await server.outcome_of(task)
    visit.end()
    server.outcomes.clear()
    await server.visit()
    assert await server.outcome_of(task) == first
    await agent.stop()
    server.outcomes.clear()
    server.acknowledge = True
    await agent.start()
    assert await server.outcome_of(task) == first
    assert server.printed(task) == b"hello\n"


async def test_a_flood_of_output_does_not_keep_a_heartbeat_or_another_task_waiting(
    server: LinkServer, agent: AgentProcess
) -> None:
    machine = server.realm.furnish(agent.home, server.address)
    await agent.start()
    visit = await server.visit()
    loud, quiet = new_task(), new_task()
    visit.offer(loud, envelope_for(server, machine, "timeout", "2", "cat", "/dev/zero"))
    await server.until(lambda: len(server.outputs.get(loud, {})) > 5)
    began = datetime.now(UTC)
    visit.offer(quiet, envelope_for(server, machine, "echo", "here"))
    assert (await server.outcome_of(quiet)).state is OutcomeState.SUCCEEDED
    assert datetime.now(UTC) - began < timedelta(seconds=1.5)
    outcome = await server.outcome_of(loud)
    assert outcome.output_truncated
    assert len(server.printed(loud)) == 8 * 1024 * 1024
    assert server.printed(quiet) == b"here\n"


async def test_a_damaged_journal_executes_nothing_and_says_so(
    server: LinkServer, agent: AgentProcess, tmp_path: Path
) -> None:
    machine = server.realm.furnish(agent.home, server.address)
    damaged = bytearray(agent.home.journal.read_bytes())
    damaged[15] ^= 4
    agent.home.journal.write_bytes(damaged)
    await agent.start()
    visit = await server.visit()
    task = new_task()
    visit.offer(task, envelope_for(server, machine, "touch", str(tmp_path / "made")))
    outcome = await server.outcome_of(task)
    assert (outcome.state, outcome.code) == (OutcomeState.INDETERMINATE, "database_damaged")
    assert not (tmp_path / "made").exists()
    assert agent.home.journal.read_bytes() == damaged
    _, out, _ = await agent.command("status", "--output", "json")
    assert "damaged" in json.loads(out)["journal"]


def renewing(server: LinkServer, *, key: ec.EllipticCurvePublicKey, **changes: Any) -> list[int]:
    """Let the server renew certificates as the real one does; counts how often it did."""
    asked: list[int] = []

    def renew(request: enrollment_pb2.RenewRequest) -> enrollment_pb2.RenewResponse:
        asked.append(request.requested_at_ms)
        signed = renewal_bytes(request.certificate, request.requested_at_ms)
        key.verify(request.signature, signed, ec.ECDSA(SHA256()))
        identity = identity_of(x509.load_der_x509_certificate(request.certificate))
        assert isinstance(identity, MachineIdentity)
        renewed = certify_key(server.realm, identity, key, **changes)
        chain = [renewed, server.realm.issuing.certificate]
        return enrollment_pb2.RenewResponse(
            certificate_chain=[one.public_bytes(Encoding.DER) for one in chain]
        )

    server.renew = renew
    return asked


@pytest.mark.parametrize("ended_ago", [timedelta(hours=1), 7 * DAY, 365 * DAY])
async def test_a_machine_whose_certificate_ended_in_a_drawer_renews_it_and_connects(
    server: LinkServer, agent: AgentProcess, ended_ago: timedelta
) -> None:
    begins = datetime.now(UTC) - ended_ago - DAY
    key = ec.generate_private_key(ec.SECP256R1())
    server.realm.furnish(
        agent.home, server.address, server.open_address, begins=begins, life=DAY, key=key
    )
    asked = renewing(server, key=key.public_key())
    await agent.start()
    await server.visit()
    assert len(asked) == 1


async def test_past_half_of_its_life_a_certificate_is_renewed_on_a_link_that_goes_on(
    server: LinkServer, agent: AgentProcess
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    server.realm.furnish(
        agent.home,
        server.address,
        server.open_address,
        begins=datetime.now(UTC) - 7 * DAY,
        life=10 * DAY,
        key=key,
    )
    asked = renewing(server, key=key.public_key())
    server.may_renew.clear()
    await agent.start()
    await server.visit()
    server.may_renew.set()
    await server.visit()
    assert len(asked) == 1


def rubbish(server: LinkServer) -> list[bytes]:
    """What a controller may answer in the place of a chain."""
    machine = MachineIdentity(server.realm.tenant, MachineId(fresh("mc")))
    leaf = server.realm.machine(machine).certificate.public_bytes(Encoding.DER)
    at = leaf.index(bytes.fromhex("2a8648ce3d030107"))  # the curve of its key
    garbled = leaf[:at] + b"\xff" + leaf[at + 1 :]
    return [b"", b"no certificate", leaf[:-1], garbled, leaf + bytes(10_000)]


@pytest.mark.parametrize("which", range(5))
async def test_a_controller_that_renews_with_rubbish_is_named_and_asked_later(
    server: LinkServer, agent: AgentProcess, which: int
) -> None:
    begins = datetime.now(UTC) - 2 * DAY
    server.realm.furnish(agent.home, server.address, server.open_address, begins=begins, life=DAY)
    answer = enrollment_pb2.RenewResponse(certificate_chain=[rubbish(server)[which]])
    server.renew = lambda _: answer
    await agent.start()
    said = await agent.until_status(link="parked", code="unauthenticated")
    assert "the controller answered with a certificate" in said["reason"]
    assert agent.alive


async def test_a_chain_that_is_too_long_to_be_shown_is_not_kept(
    server: LinkServer, agent: AgentProcess
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    begins = datetime.now(UTC) - 2 * DAY
    server.realm.furnish(
        agent.home, server.address, server.open_address, begins=begins, life=DAY, key=key
    )
    renewing(server, key=key.public_key())
    renew, more = server.renew, server.realm.root.certificate.public_bytes(Encoding.DER)

    def longer(request: enrollment_pb2.RenewRequest) -> enrollment_pb2.RenewResponse:
        answer = renew(request)
        answer.certificate_chain.extend([more] * 1000)
        return answer

    server.renew = longer
    await agent.start()
    await server.visit()
    assert len(x509.load_pem_x509_certificates(agent.home.chain.read_bytes())) == 2


async def test_certificates_that_are_old_when_they_come_are_not_asked_for_without_end(
    server: LinkServer, agent: AgentProcess
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    old = {"begins": datetime.now(UTC) - 7 * DAY, "life": 10 * DAY}
    server.realm.furnish(agent.home, server.address, server.open_address, key=key, **old)
    asked = renewing(server, key=key.public_key(), **old)
    await agent.start()
    await server.visit()
    await server.visit()
    beats = len(server.heartbeats)
    await server.until(lambda: len(server.heartbeats) > beats + 2)
    assert len(asked) == 1
    assert server.visits.empty()


async def test_the_root_of_another_installation_is_named_as_the_cause(
    server: LinkServer, agent: AgentProcess
) -> None:
    Realm().furnish(agent.home, server.address)
    await agent.start()
    said = await agent.until_status(code="wrong_pin")
    assert "another installation" in said["reason"]
