"""Revocation of operators by way of a controller that may be hostile, to a real agent."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.tasks.revoked import load_revocations
from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order, encode_revocations
from protocol.codec import encode_signed_revocations as encode_signed
from protocol.identity import MachineIdentity, OperatorIdentity, Role
from protocol.ids import OrderId
from protocol.order import Order, sign
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.v1 import link_pb2
from tests.fakes.link_server import Authority, LinkServer, Realm, Visit, fresh, new_task
from tests.integration.agent_process import AgentProcess


def listed(realm: Realm, version: int, *names: str, by: Authority | None = None) -> bytes:
    now = datetime.now(UTC)
    entries = tuple(RevokedOperator(name, b"", now) for name in names)
    data = encode_revocations(Revocations(version, now, entries))
    return encode_signed(sign_revocations(data, (by or realm.root).key))


def order(machine: MachineIdentity, argv: tuple[str, ...], **changes: object) -> Order:
    now = datetime.now(UTC).replace(microsecond=0)
    made = Order(
        id=OrderId(fresh("or")),
        tenant=machine.tenant,
        machines=(machine.machine,),
        action=RunProgram(argv),
        issued_at=now - timedelta(minutes=1),
        not_before=now - timedelta(minutes=1),
        deliver_by=now + timedelta(hours=1),
        timeout=timedelta(minutes=1),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def tell(visit: Visit, data: bytes) -> None:
    visit.say(revocations_changed=link_pb2.RevocationsChanged(revocations=data))


async def test_a_revoked_operator_is_not_obeyed_whatever_the_controller_does(
    tmp_path: Path,
) -> None:
    realm = Realm()
    ann, bob = (
        realm.operator(identity=OperatorIdentity(name, Role.ADMIN, None)) for name in ("ann", "bob")
    )
    agent = AgentProcess(tmp_path / "machine")
    effects = tmp_path / "effects"
    effects.mkdir()
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address)

        async def ended(by: Authority, visit: Visit, along: bytes = b"", **changes: object) -> str:
            made = order(machine, ("touch", str(effects / fresh("or"))), **changes)
            envelope = sign(encode_order(made), key=by.key, certificate=by.certificate)
            task = new_task()
            visit.offer(task, encode_envelope(replace(envelope, revocations=along)))
            outcome = await server.outcome_of(task)
            return outcome.code or outcome.state

        await agent.start()
        visit = await server.visit()
        assert await ended(ann, visit) == "succeeded"

        # Accepted and waiting for its turn behind another one when the list comes.
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        busy, waiting = new_task(), new_task()
        held = order(machine, ("cat", str(gate)))
        visit.offer(
            busy,
            encode_envelope(sign(encode_order(held), key=bob.key, certificate=bob.certificate)),
        )
        soon = datetime.now(UTC) + timedelta(seconds=3)
        later = order(machine, ("touch", str(effects / "waited")), not_before=soon)
        hers = sign(encode_order(later), key=ann.key, certificate=ann.certificate)
        visit.offer(waiting, encode_envelope(hers))
        await agent.until(lambda: [e for e in agent.events() if e.get("task") == waiting] or None)
        tell(visit, listed(realm, 2, "ann"))
        assert (await server.outcome_of(waiting)).code == "revoked"
        with gate.open("wb"):
            pass
        assert await ended(ann, visit) == "revoked"

        # Nothing takes the list back: an old one, a forged one, silence after a restart.
        tell(visit, listed(realm, 1))
        tell(visit, listed(realm, 9, by=realm.issuing))
        tell(visit, listed(Realm(), 9))
        tell(visit, b"\xff" * 40)
        assert await ended(ann, visit) == "revoked"
        assert await ended(bob, visit) == "succeeded"
        assert load_revocations(agent.home, realm.root.certificate).version == 2
        await agent.until_status(link="connected")
        await agent.stop()
        await agent.start()
        visit = await server.visit()
        assert await ended(ann, visit) == "revoked"

        # An order of somebody who knows more is not obeyed without the list, and brings it.
        assert await ended(bob, visit, revocations_version=3) == "stale_revocations"
        forged = listed(realm, 3, by=realm.issuing)
        assert await ended(bob, visit, forged, revocations_version=3) == "bad_signature"
        third = listed(realm, 3, "ann", "eve")
        assert await ended(bob, visit, third, revocations_version=3) == "succeeded"
        assert load_revocations(agent.home, realm.root.certificate).version == 3
        code, out, _ = await agent.command("status", "--output", "json")
        assert code == 0
        assert '"version 3"' in out
        await agent.stop()
    assert not (effects / "waited").exists()
    assert len(list(effects.iterdir())) == 3
