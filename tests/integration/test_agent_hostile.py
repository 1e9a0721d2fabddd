"""A controller that was taken over: it may say anything, and no machine does its bidding.

It holds the issuing authority's key, every order that ever passed through it, and the
link. It has not got the root's key, nor an operator's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.identity import ControllerIdentity, MachineIdentity, OperatorIdentity, Role
from protocol.ids import MachineId, OrderId, TenantId
from protocol.order import Envelope, Order, Signature, sign
from protocol.outcome import OutcomeState
from tests.fakes.link_server import DAY, Authority, LinkServer, Realm, certify, fresh, new_task
from tests.integration.agent_process import AgentProcess

SEED = 20260501
FLIPS = 700
CUTS = 150


class Forger:
    """Makes orders that would leave a file each, were they executed."""

    def __init__(self, realm: Realm, machine: MachineIdentity, effects: Path) -> None:
        self.realm, self.machine, self.effects = realm, machine, effects
        self.random = random.Random(SEED)
        self.count = 0

    def order(self, **changes: object) -> Order:
        self.count += 1
        now = datetime.now(UTC).replace(microsecond=0)
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.machine.tenant,
            machines=(self.machine.machine,),
            action=RunProgram(("touch", str(self.effects / str(self.count)))),
            issued_at=now,
            not_before=now,
            deliver_by=now + timedelta(hours=1),
            timeout=timedelta(minutes=1),
        )
        return replace(order, **changes)  # type: ignore[arg-type]

    def signed(self, by: Authority, **changes: object) -> Envelope:
        return sign(encode_order(self.order(**changes)), key=by.key, certificate=by.certificate)

    def wrong_signers(self) -> Iterator[Envelope]:
        """Everybody but an operator of this root, among them all whom the attacker can be."""
        realm = self.realm
        everything = OperatorIdentity("mallory", Role.ADMIN, None)
        own_root = certify("root", ca=True)
        own_issuing = certify("issuing", by=own_root, ca=True)
        yield Envelope(encode_order(self.order()), ())
        yield Envelope(encode_order(self.order()), (Signature(b"", b""),))
        for by in (own_root, own_issuing, realm.issuing):
            yield self.signed(certify("mallory", by=by, identity=everything))
            yield self.signed(certify("root", by=by, identity=everything))
        yield self.signed(certify("root", by=None, identity=everything))
        yield self.signed(realm.issuing)
        yield self.signed(realm.server)
        yield self.signed(certify("c", by=realm.issuing, identity=ControllerIdentity()))
        yield self.signed(realm.machine(self.machine))
        sub = certify("root", by=realm.issuing, ca=True)
        yield self.signed(certify("mallory", by=sub, identity=everything))
        yield self.signed(certify("mallory", by=realm.issuing, identity=everything, ca=True))
        # A real operator's certificate with somebody else's key.
        ann = realm.operator()
        yield self.signed(Authority(ann.certificate, own_root.key))
        forged = self.signed(certify("mallory", by=own_root, identity=everything))
        real = self.signed(ann)
        yield Envelope(forged.order, real.signatures)
        yield Envelope(real.order, (*real.signatures, *forged.signatures))
        yield Envelope(real.order, real.signatures * 9)

    def wrong_orders(self) -> Iterator[Envelope]:
        """Really signed, and yet not for this machine, now, by somebody who may."""
        realm, now = self.realm, datetime.now(UTC).replace(microsecond=0)
        ann = realm.operator()
        other = TenantId(fresh("tn"))
        yield self.signed(ann, tenant=other)
        yield self.signed(ann, machines=())
        yield self.signed(ann, machines=(MachineId(fresh("mc")),))
        for age in (timedelta(seconds=1), timedelta(hours=1), 400 * DAY):
            yield self.signed(ann, deliver_by=now - age, issued_at=now - age - DAY)
        for ahead in (timedelta(minutes=6), DAY, 3650 * DAY):
            late = now + ahead
            yield self.signed(ann, not_before=late, deliver_by=late + DAY)
            yield self.signed(ann, issued_at=late, deliver_by=late + DAY)
        yield self.signed(ann, timeout=timedelta())
        yield self.signed(ann, deliver_by=now + timedelta(hours=1), issued_at=now + DAY)
        for role in (Role.HELPDESK, Role.AUDITOR):
            yield self.signed(realm.operator(role))
        scoped = OperatorIdentity("bob", Role.ADMIN, frozenset({other}))
        yield self.signed(realm.operator(identity=scoped))
        yield self.signed(realm.operator(begins=now - 2 * DAY, life=DAY))
        yield self.signed(realm.operator(begins=now + DAY))

    def edited(self) -> Iterator[bytes]:
        """A real order, and its envelope, with bits flipped, bytes cut, fields added."""
        ann = self.realm.operator()
        envelope = self.signed(ann)
        certificate = ann.certificate.public_bytes(Encoding.DER)
        [signature] = envelope.signatures
        for _ in range(FLIPS):
            yield encode_envelope(replace(envelope, order=self.flipped(envelope.order)))
        for _ in range(FLIPS // 7):
            bad = Signature(certificate, self.flipped(signature.signature))
            yield encode_envelope(replace(envelope, signatures=(bad,)))
            bad = Signature(self.flipped(certificate), signature.signature)
            yield encode_envelope(replace(envelope, signatures=(bad,)))
        whole = encode_envelope(envelope)
        for _ in range(CUTS):
            yield whole[: self.random.randrange(len(whole))]
        for tail in (b"\xaa\x01\x01a", b"\x0a", whole):
            yield encode_envelope(replace(envelope, order=envelope.order + tail))
        yield whole + b"\xaa\x01\x01a"
        yield bytes(self.random.randrange(256) for _ in range(3000))
        yield bytes(3 * 1024 * 1024)

    def flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        # Flips may undo each other.
        return bytes(changed) if bytes(changed) != data else data + b"\0"

    def everything(self) -> Iterator[bytes]:
        yield from map(encode_envelope, self.wrong_signers())
        yield from map(encode_envelope, self.wrong_orders())
        yield from self.edited()


@pytest.mark.timeout(180)
async def test_none_of_a_thousand_forged_orders_is_executed(tmp_path: Path) -> None:
    realm = Realm()
    agent = AgentProcess(tmp_path / "machine")
    effects = tmp_path / "effects"
    effects.mkdir()
    async with LinkServer(realm, acknowledge=False) as server:
        machine = realm.furnish(agent.home, server.address)
        await agent.start()
        visit = await server.visit()
        forger = Forger(realm, machine, effects)
        forged = {new_task(): envelope for envelope in forger.everything()}
        assert len(forged) > 1000
        for task, envelope in forged.items():
            visit.offer(task, envelope)
        # What an operator did sign is executed, once, however often it is shown.
        ann = realm.operator()
        real = encode_envelope(forger.signed(ann))
        mark = effects / str(forger.count)
        first, again = new_task(), new_task()
        visit.offer(first, real)
        assert (await server.outcome_of(first)).state is OutcomeState.SUCCEEDED
        assert mark.exists()
        mark.unlink()
        visit.offer(again, real)
        visit.offer(first, real)
        assert (await server.outcome_of(again)).code == "replayed"
        ends = {outcome.task: outcome.state for outcome in server.outcomes}
        never_ran = {OutcomeState.REJECTED, OutcomeState.EXPIRED}
        wrong = {task: ends.get(task) for task in forged if ends.get(task) not in never_ran}
        assert not wrong
        assert list(effects.iterdir()) == []
        assert agent.alive
        await agent.stop()
    lines = agent.home.journal.read_bytes().count(b'"kind":"accepted"')
    assert lines == 1, f"seed {SEED}"
