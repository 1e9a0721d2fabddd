"""A controller in a stranger's hands calls machines copies: they lose nothing by it for good."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.admission import read_signing_request
from protocol.action import Action, RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.errors import Code, SteadError
from protocol.identity import (
    MachineIdentity,
    identity_of,
    key_hash,
    public_key_of,
    read_certificate,
)
from protocol.ids import MachineId, OrderId, machine_of_key
from protocol.order import Order, sign
from protocol.outcome import OutcomeState
from protocol.v1 import enrollment_pb2
from tests.fakes.link_server import LinkServer, Realm, certify_key, fresh, new_task
from tests.integration.agent_process import AgentProcess, idle_agent
from tests.integration.test_agent_enroll import troubles

__all__ = ["idle_agent"]


def chain_of(realm: Realm, machine: MachineIdentity, key: ec.EllipticCurvePublicKey) -> list[bytes]:
    chain = (certify_key(realm, machine, key), realm.issuing.certificate)
    return [one.public_bytes(Encoding.DER) for one in chain]


def order_for(machine: MachineIdentity, action: Action) -> Order:
    now = datetime.now(UTC).replace(microsecond=0)
    return Order(
        id=OrderId(fresh("or")),
        tenant=machine.tenant,
        machines=(machine.machine,),
        action=action,
        issued_at=now,
        not_before=now,
        deliver_by=now + timedelta(hours=1),
        timeout=timedelta(minutes=1),
    )


async def test_a_token_that_no_controller_would_take_is_not_kept(agent: AgentProcess) -> None:
    async with LinkServer(Realm()) as server:
        server.realm.furnish(agent.home, server.address)
        agent.home.ratchet.write_bytes(b"token")
        server.ratchet = bytes(4 * 1024 * 1024)
        await agent.start()
        await server.visit()
        await agent.until_status(link="connected")
        assert agent.home.ratchet.read_bytes() == b"token"
        await agent.stop()
        # Nor is one shown that came there otherwise: nobody could be connected to any more.
        agent.home.ratchet.write_bytes(server.ratchet)
        await agent.start()
        await server.visit()


async def test_what_a_controller_says_steers_no_terminal(agent: AgentProcess) -> None:
    async with LinkServer(Realm()) as server:
        server.realm.furnish(agent.home, server.address)
        words = "\x1b]0;mine\x07\x1b[2J\u202e not\nwanted" + "x" * 10_000
        server.refuse = SteadError(words, code=Code.REVOKED)
        await agent.start()
        said = await agent.until_status(link="parked", code="revoked")
        assert said["reason"].startswith("?]0;mine??[2J? not wanted")
        assert len(said["reason"]) < 5000
        for command in ("status", "doctor"):
            _, out, _ = await agent.command(command)
            assert "not wanted" in out
            assert all(one.isprintable() or one == "\n" for one in out)


async def test_a_machine_that_is_called_a_copy_again_and_again_stays_what_it_can_be(
    agent: AgentProcess,
) -> None:
    realm = Realm()
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address, server.open_address).machine
        secrets = {part: getattr(agent.home, part).read_bytes() for part in ("key", "sealing_key")}
        agent.home.backup_set.write_bytes(b"set")
        asked: list[bytes] = []

        def rekey(request: enrollment_pb2.RekeyRequest) -> enrollment_pb2.RekeyResponse:
            asked.append(request.signing_request)
            key = read_signing_request(request.signing_request)
            new = MachineIdentity(realm.tenant, machine_of_key(key_hash(key), at_ms=0))
            return enrollment_pb2.RekeyResponse(
                machine_id=new.machine, certificate_chain=chain_of(realm, new, key)
            )

        server.rekey = rekey
        server.refuse = SteadError("another computer is this machine", code=Code.CLONE)
        await agent.start()
        said = await agent.until_status(link="parked", code="precondition")
        assert "stead-agent identity ls" in said["reason"]
        assert len(asked) == 3
        _, out, _ = await agent.command("status", "--output", "json")
        assert machine in json.loads(out)["former_identities"]
        code, out, _ = await agent.command("doctor", "--output", "json")
        assert (code, "former" in troubles(out)) == (1, True)
        code, _, err = await agent.command("identity", "back", machine, "--yes")
        assert code == 1, err  # not while it runs
        await agent.stop()

        server.refuse = None
        code, out, err = await agent.command("identity", "back", machine, "--yes")
        assert (code, machine in out) == (0, True), err
        assert {part: getattr(agent.home, part).read_bytes() for part in secrets} == secrets
        assert agent.home.backup_set.read_bytes() == b"set"
        await agent.start()
        await server.visit()
        await agent.until_status(link="connected", machine=machine)
        _, out, _ = await agent.command("identity", "ls", "--output", "json")
        assert len(json.loads(out)) == 3
        await agent.stop()
        code, _, _ = await agent.command(
            "identity", "forget", json.loads(out)[0]["machine"], "--yes"
        )
        assert code == 0


async def test_a_machine_goes_back_by_itself_to_a_controller_that_knows_what_it_was_alone(
    agent: AgentProcess,
) -> None:
    realm = Realm()
    async with LinkServer(realm) as server:
        own = realm.furnish(agent.home, server.address, server.open_address)
        agent.home.backup_set.write_bytes(b"set")
        asked: list[str] = []

        def rekey(request: enrollment_pb2.RekeyRequest) -> enrollment_pb2.RekeyResponse:
            key = read_signing_request(request.signing_request)
            new = MachineIdentity(realm.tenant, machine_of_key(key_hash(key), at_ms=0))
            # The controller after this one has never heard of the new name.
            server.refuse = SteadError("nobody of this name is known", code=Code.UNKNOWN_MACHINE)
            return enrollment_pb2.RekeyResponse(
                machine_id=new.machine, certificate_chain=chain_of(realm, new, key)
            )

        def renew(request: enrollment_pb2.RenewRequest) -> enrollment_pb2.RenewResponse:
            leaf = read_certificate(request.certificate)
            who = identity_of(leaf)
            assert isinstance(who, MachineIdentity)
            asked.append(who.machine)
            if who != own:
                raise SteadError("nobody of this name is known", code=Code.UNKNOWN_MACHINE)
            server.refuse = None
            chain = chain_of(realm, who, public_key_of(leaf))
            return enrollment_pb2.RenewResponse(certificate_chain=chain)

        server.rekey, server.renew = rekey, renew
        server.refuse = SteadError("another computer is this machine", code=Code.CLONE)
        await agent.start()
        await server.visit()
        await agent.until_status(link="connected", machine=own.machine)
        assert asked == [own.machine]
        assert agent.home.backup_set.read_bytes() == b"set"
        _, out, _ = await agent.command("identity", "ls", "--output", "json")
        assert len(json.loads(out)) == 1


@pytest.mark.parametrize("whose", ["its own", "another machine's"])
async def test_a_machine_takes_no_name_under_which_orders_are_out_already(
    agent: AgentProcess, tmp_path: Path, whose: str
) -> None:
    """Or a controller would have each order done once more, and by whom it was not given to."""
    realm, effect = Realm(), tmp_path / "effect"
    async with LinkServer(realm) as server:
        own = realm.furnish(agent.home, server.address, server.open_address)
        named = own if whose == "its own" else MachineIdentity(own.tenant, MachineId(fresh("mc")))
        order = order_for(named, RunProgram(("touch", str(effect))))
        ann = realm.operator()
        signed = sign(encode_order(order), key=ann.key, certificate=ann.certificate)
        envelope = encode_envelope(signed)
        if named == own:
            await agent.start()
            visit, task = await server.visit(), new_task()
            visit.offer(task, envelope)
            assert (await server.outcome_of(task)).state is OutcomeState.SUCCEEDED
            effect.unlink()
            await agent.stop()

        def rekey(request: enrollment_pb2.RekeyRequest) -> enrollment_pb2.RekeyResponse:
            key = read_signing_request(request.signing_request)
            return enrollment_pb2.RekeyResponse(
                machine_id=named.machine, certificate_chain=chain_of(realm, named, key)
            )

        server.rekey = rekey
        server.refuse = SteadError("another computer is this machine", code=Code.CLONE)
        await agent.start()
        said = await agent.until_status(link="parked")
        assert (said["code"], said["machine"]) == ("unauthenticated", own.machine)
        await agent.stop()
        assert agent.identity == own

        server.refuse = None
        await agent.start()
        visit, task = await server.visit(), new_task()
        visit.offer(task, envelope)
        why = Code.REPLAYED if named == own else Code.WRONG_TARGET
        assert (await server.outcome_of(task)).code == why
        assert not effect.exists()
