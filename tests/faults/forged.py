"""Whatever a hostile controller can make of orders and lists that passed through it.

It holds the issuing authority's key, a revoked operator's key, and every order and list
that was ever signed. It has not got the root's key, nor that of an operator in good
standing. Every variant that is made here would leave a file, were it executed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.action import CancelOrder, ControlPower, RunProgram, RunScript, SetBackup
from protocol.codec import (
    encode_envelope,
    encode_order,
    encode_revocations,
    encode_signed_revocations,
    to_ms,
)
from protocol.identity import ControllerIdentity, MachineIdentity, OperatorIdentity, Role, key_hash
from protocol.ids import MachineId, OrderId, TenantId
from protocol.order import LONGEST_DELIVERY, Envelope, Order, Signature, sign
from protocol.policy import NEVER, Policy, Rule, sign_policy
from protocol.policy_codec import encode_policy, encode_signed_policy
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.standing import Standing
from tests.fakes.link_server import DAY, Authority, Realm, certify, fresh

IN_FORCE = 5
"""The version of the list, and of the policy, that the machine has."""


class Forger:
    """Makes one variant of a kind at a time; `seed` decides all of them."""

    def __init__(self, realm: Realm, machine: MachineIdentity, effects: Path, seed: int) -> None:
        self.realm, self.machine, self.effects = realm, machine, effects
        self.random = random.Random(seed)
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.ann = realm.operator(identity=_operator("ann"))
        self.eve = realm.operator(identity=_operator("eve"))
        eves_key = realm.operator(identity=_operator("eva"), key=self.eve.key)
        eves_other = realm.operator(identity=_operator("eve"))
        self.revoked = (self.eve, eves_key, eves_other)
        self.in_force = self.listed(IN_FORCE, self.eve)
        self.bob = realm.operator(identity=_operator("bob"))
        self.hal = realm.operator(identity=OperatorIdentity("hal", Role.HELPDESK, None))
        self.policy = self.ruled(IN_FORCE)
        other = Realm()
        self.other_realm = other
        self.other_tenant, self.other_machine = TenantId(fresh("tn")), MachineId(fresh("mc"))
        self.strangers = self._strangers(other)
        self.limited = self._limited()
        self.executed = self.signed(self.ann)
        self.kinds: Mapping[str, Callable[[], bytes]] = {
            "bits of the order": self.flipped_order,
            "bits of the envelope": self.flipped_envelope,
            "cut": self.cut,
            "fields edited": self.edited,
            "standing orders edited, or without sense": self.repeated,
            "not for here, not for now": self.misplaced,
            "signed by others": self.by_others,
            "signed by whom it is not for": self.by_limited,
            "signatures taken, added, exchanged": self.resigned,
            "signed by the revoked": self.by_revoked,
            "lists beside a good order": self.with_list,
            "a list that never came": self.without_list,
            "executed before": self.replayed,
            "too few, or the wrong ones": self.approved_badly,
            "what the policy forbids": self.forbidden,
            "a policy beside a good order": self.with_policy,
            "a policy that never came": self.without_policy,
        }

    def order(self, **changes: object) -> Order:
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.machine.tenant,
            machines=(self.machine.machine,),
            action=RunProgram(("touch", str(self.effects / fresh("or")))),
            issued_at=self.now,
            not_before=self.now,
            deliver_by=self.now + timedelta(hours=6),
            timeout=timedelta(minutes=1),
        )
        return replace(order, **changes)  # type: ignore[arg-type]

    def signed(self, by: Authority, **changes: object) -> Envelope:
        return sign(encode_order(self.order(**changes)), key=by.key, certificate=by.certificate)

    def listed(self, version: int, *gone: Authority, by: Authority | None = None) -> bytes:
        entries = tuple(
            RevokedOperator("eve", key_hash(one.key.public_key()), self.now - DAY) for one in gone
        )
        data = encode_revocations(Revocations(version, self.now, entries))
        key: ec.EllipticCurvePrivateKey = (by or self.realm.root).key
        return encode_signed_revocations(sign_revocations(data, key))

    def ruled(
        self,
        version: int,
        *rules: Rule,
        tenant: TenantId | None = None,
        by: Authority | None = None,
    ) -> bytes:
        """A policy; of the kind that is in force where no rules are given."""
        strict = rules or (Rule("run_script", second_above=0), Rule("control_power", forbid=True))
        policy = Policy(tenant or self.machine.tenant, version, self.now, strict)
        key: ec.EllipticCurvePrivateKey = (by or self.realm.root).key
        return encode_signed_policy(sign_policy(encode_policy(policy), key))

    def scripted(self) -> Order:
        """What takes two operators by the policy in force."""
        effect = str(self.effects / fresh("or"))
        return self.order(action=RunScript("sh", b'touch "$1"', arguments=(effect,)))

    def both(self, order: Order, *by: Authority) -> Envelope:
        data = encode_order(order)
        one, *others = (sign(data, key=a.key, certificate=a.certificate) for a in by)
        signatures = (*one.signatures, *(s for o in others for s in o.signatures))
        return replace(one, signatures=signatures)

    def approved_badly(self) -> bytes:
        """One where two are needed; the same one twice; one who may not; over other bytes."""
        realm, order = self.realm, self.scripted()
        if self.random.random() < 0.5:
            bounds = Standing("daily", to_ms(self.now + DAY))
            order = replace(order, standing=bounds)
        elsewhere = OperatorIdentity("bob", Role.ADMIN, frozenset({self.other_tenant}))
        seconds = [
            self.ann,
            realm.operator(identity=_operator("ann")),
            realm.operator(identity=_operator("andy"), key=self.ann.key),
            self.hal,
            realm.operator(identity=OperatorIdentity("eve2", Role.AUDITOR, None)),
            realm.operator(identity=elsewhere),
            *self.revoked,
            *self.strangers,
        ]
        many = MachineId(fresh("mc"))
        choices: list[Callable[[], Envelope]] = [
            lambda: self.both(order, self.ann),
            lambda: self.both(order, self.hal),
            lambda: self.both(order, self.ann, self.random.choice(seconds)),
            lambda: self.both(order, self.random.choice(seconds), self.ann),
            lambda: self.both(order, self.hal, self.ann),
            lambda: replace(
                self.both(order, self.ann),
                signatures=(
                    *self.both(order, self.ann).signatures,
                    *self.both(self.scripted(), self.bob).signatures,
                ),
            ),
            lambda: self.both(
                self.order(machines=(self.machine.machine, *(fresh_machines(50)), many)), self.ann
            ),
        ]
        along = self.random.choice((b"", self.policy, self.wrong_policy()))
        return encode_envelope(replace(self.random.choice(choices)(), policy=along))

    def forbidden(self) -> bytes:
        order = self.order(action=ControlPower("reboot", delay_s=600))
        signers = self.random.choice(([self.ann], [self.ann, self.bob]))
        along = self.random.choice((b"", self.policy, self.wrong_policy()))
        return encode_envelope(replace(self.both(order, *signers), policy=along))

    def with_policy(self) -> bytes:
        """What comes with an order is no policy of this tenant: the order is not taken either."""
        good = self.signed(self.ann, policy_version=IN_FORCE)
        return encode_envelope(replace(good, policy=self.forged_policy()))

    def without_policy(self) -> bytes:
        version = IN_FORCE + self.random.randrange(1, 2**32)
        along = self.random.choice((b"", self.policy, self.wrong_policy()))
        real = self.signed(self.ann, policy_version=version)
        return encode_envelope(replace(real, policy=along))

    def wrong_policy(self) -> bytes:
        """A policy that must not come into force: forged, old, or another one of its version."""
        if self.random.random() < 0.3:
            lax = Rule("dangerous", second_above=NEVER)
            return self.ruled(self.random.randrange(1, IN_FORCE + 1), lax)
        return self.forged_policy()

    def forged_policy(self) -> bytes:
        version = IN_FORCE + self.random.randrange(1, 2**32)
        lax = Rule("dangerous", second_above=NEVER)
        choices: list[Callable[[], bytes]] = [
            lambda: self._flip(self.ruled(version, lax)),
            lambda: self.ruled(version, lax)[: self.random.randrange(1, 60)],
            lambda: self.ruled(version, lax, tenant=self.other_tenant),
            lambda: self.ruled(version, lax, by=self.realm.issuing),
            lambda: self.ruled(version, lax, by=self.ann),
            lambda: self.ruled(version, lax, by=self.other_realm.root),
            lambda: self.ruled(version, Rule("cancel_order", forbid=True)),
            # The root's word about something else.
            lambda: self.listed(version),
        ]
        return self.random.choice(choices)()

    def flipped_order(self) -> bytes:
        real = self.signed(self.ann)
        return encode_envelope(replace(real, order=self._flip(real.order)))

    def flipped_envelope(self) -> bytes:
        real = self.signed(self.ann)
        [one] = real.signatures
        if self.random.random() < 0.5:
            one = replace(one, signature=self._flip(one.signature))
        else:
            one = replace(one, certificate=self._flip(one.certificate))
        return encode_envelope(replace(real, signatures=(one,)))

    def cut(self) -> bytes:
        whole = encode_envelope(self.signed(self.ann))
        tail = self.random.choice((b"", b"", b"\x0a", b"\xaa\x01\x01a", self.random.randbytes(40)))
        return whole[: self.random.randrange(len(whole))] + tail

    def edited(self) -> bytes:
        """A field is another one than what was signed."""
        order = self.order()
        real = sign(encode_order(order), key=self.ann.key, certificate=self.ann.certificate)
        edits: list[dict[str, object]] = [
            {"id": OrderId(fresh("or"))},
            {"tenant": self.other_tenant},
            {"machines": (self.machine.machine, self.other_machine)},
            {"action": RunProgram(("touch", str(self.effects / "edited")))},
            {"action": SetBackup((b"/",))},
            {"action": CancelOrder(order.id)},
            {"issued_at": self._near()},
            {"not_before": self._near()},
            {"deliver_by": self.now + timedelta(seconds=self.random.randrange(1, 10**7))},
            {"timeout": timedelta(seconds=self.random.randrange(61, 10**6))},
            {"reason": self.random.randbytes(4).hex()},
            {"repeatable": True},
            {"windows": ("00:00-24:00",)},
            {"revocations_version": self.random.randrange(1, IN_FORCE + 1)},
            {"policy_version": self.random.randrange(1, IN_FORCE + 1)},
            {"standing": Standing("hourly", to_ms(self.now + DAY))},
        ]
        changed = replace(order, **self.random.choice(edits))  # type: ignore[arg-type]
        forged = encode_order(changed)
        return encode_envelope(replace(real, order=forged if forged != real.order else b""))

    def repeated(self) -> bytes:
        """A standing order whose bounds were edited, or make no sense; or one that was not one."""
        bounds = Standing("daily", to_ms(self.now + DAY), max_runs=3, spread_s=60, name="nightly")
        order = self.order(standing=bounds)
        edits: list[dict[str, object]] = [
            {"schedule": "* * * * *"},
            {"schedule": "hourly"},
            {"ends_at_ms": bounds.ends_at_ms + self.random.randrange(1, 10**10)},
            {"max_runs": self.random.choice((0, 4, 2**31 - 1))},
            {"spread_s": self.random.choice((0, 61))},
            {"name": ""},
        ]
        wrong: list[dict[str, object]] = [
            {"schedule": ""},
            {"schedule": "61 * * * *"},
            {"ends_at_ms": self.random.choice((0, to_ms(self.now), 2**60))},
            {"ends_at_ms": to_ms(self.now + 500 * DAY)},
            {"max_runs": 2**32 - 1},
            {"spread_s": 10**6},
        ]
        if self.random.random() < 0.5:
            real = sign(encode_order(order), key=self.ann.key, certificate=self.ann.certificate)
            edited = replace(bounds, **self.random.choice(edits))  # type: ignore[arg-type]
            forged = replace(order, standing=self.random.choice((edited, edited, None)))
            return encode_envelope(replace(real, order=encode_order(forged)))
        broken = replace(bounds, **self.random.choice(wrong))  # type: ignore[arg-type]
        other = self.random.choice(
            (self.order(standing=broken), self.order(standing=bounds, action=CancelOrder(order.id)))
        )
        return encode_envelope(
            sign(encode_order(other), key=self.ann.key, certificate=self.ann.certificate)
        )

    def misplaced(self) -> bytes:
        """Really signed by an operator, and not for this machine, or not now."""
        age = timedelta(seconds=self.random.randrange(1, 10**7))
        past, later = self.now - age, self.now + timedelta(minutes=6) + age
        changes: list[dict[str, object]] = [
            {"tenant": self.other_tenant},
            {"machines": ()},
            {"machines": (self.other_machine,)},
            {"deliver_by": past, "issued_at": past - DAY, "not_before": past - DAY},
            {"deliver_by": past},
            {"issued_at": later, "deliver_by": later + DAY},
            {"not_before": later, "deliver_by": later + DAY},
            {"timeout": timedelta()},
            {"deliver_by": self.now + LONGEST_DELIVERY + age},
            {"deliver_by": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
        ]
        return encode_envelope(self.signed(self.ann, **self.random.choice(changes)))

    def by_others(self) -> bytes:
        return encode_envelope(self.signed(self.random.choice(self.strangers)))

    def by_limited(self) -> bytes:
        return encode_envelope(self.signed(self.random.choice(self.limited)))

    def resigned(self) -> bytes:
        real, other = self.signed(self.ann), self.signed(self.ann)
        stranger = self.signed(self.random.choice(self.strangers))
        gone = sign(real.order, key=self.eve.key, certificate=self.eve.certificate)
        shown = real.signatures[0].certificate
        choices: list[tuple[Signature, ...]] = [
            (),
            other.signatures,
            stranger.signatures,
            real.signatures + other.signatures,
            stranger.signatures + real.signatures,
            real.signatures + gone.signatures,
            gone.signatures + real.signatures,
            real.signatures * self.random.randrange(9, 20),
            (Signature(shown, self.random.randbytes(71)),),
            (Signature(shown, b""),),
            (Signature(b"", real.signatures[0].signature),),
            (*real.signatures, Signature(b"", b"")),
        ]
        return encode_envelope(replace(real, signatures=self.random.choice(choices)))

    def by_revoked(self) -> bytes:
        """By name, by key, at any time, with whichever list besides."""
        at = self.now - timedelta(seconds=self.random.randrange(3000))
        real = self.signed(self.random.choice(self.revoked), issued_at=at, not_before=at)
        along = self.random.choice((b"", self.in_force, self.wrong_list(), self.listed(1)))
        return encode_envelope(replace(real, revocations=along))

    def with_list(self) -> bytes:
        """What comes with an order is not what it says: the order is not taken either."""
        return encode_envelope(
            replace(
                self.signed(self.ann, revocations_version=IN_FORCE), revocations=self.forged_list()
            )
        )

    def without_list(self) -> bytes:
        version = IN_FORCE + self.random.randrange(1, 2**32)
        along = self.random.choice((b"", self.in_force, self.listed(1), self.wrong_list()))
        real = self.signed(self.ann, revocations_version=version)
        return encode_envelope(replace(real, revocations=along))

    def replayed(self) -> bytes:
        again = sign(self.executed.order, key=self.ann.key, certificate=self.ann.certificate)
        along = self.random.choice((b"", self.in_force, self.listed(1)))
        choices = (self.executed.signatures, again.signatures, again.signatures * 2)
        signatures = self.random.choice(choices)
        return encode_envelope(Envelope(self.executed.order, signatures, along))

    def wrong_list(self) -> bytes:
        """A list that must not come into force: forged, or old."""
        if self.random.random() < 0.3:
            return self.listed(self.random.randrange(1, IN_FORCE))
        return self.forged_list()

    def forged_list(self) -> bytes:
        version = IN_FORCE + self.random.randrange(1, 2**32)
        kind = self.random.randrange(4)
        if kind == 0:
            return self._flip(self.listed(version))
        if kind == 1:
            whole = self.listed(version)
            return whole[: self.random.randrange(1, len(whole))]
        by = self.realm.issuing if kind == 2 else self.other_realm.root
        return self.listed(version, by=by)

    def _near(self) -> datetime:
        return self.now - timedelta(seconds=self.random.randrange(1, 10**6))

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        # Flips may undo each other.
        return bytes(changed) if bytes(changed) != data else data + b"\0"

    def _strangers(self, other: Realm) -> list[Authority]:
        """Everybody but an operator of this root, among them all whom the attacker can be."""
        admin, realm = _operator("ann"), self.realm
        sub = certify("root", by=realm.issuing, ca=True)
        leaf = realm.operator(identity=_operator("eve"))
        return [
            other.operator(),
            certify("ann", by=realm.issuing, identity=admin),
            certify("ann", by=realm.issuing, identity=admin, ca=True),
            certify("ann", by=sub, identity=admin),
            certify("ann", by=leaf, identity=admin),
            certify("ann", by=None, identity=admin),
            certify("root", by=None, identity=admin, ca=True),
            certify("c", by=realm.issuing, identity=ControllerIdentity()),
            realm.issuing,
            realm.server,
            realm.machine(self.machine),
            # An operator's certificate with somebody else's key.
            Authority(self.ann.certificate, self.eve.key),
            Authority(self.ann.certificate, other.root.key),
            realm.operator(identity=admin, ca=True),
            # What lies in a file on the laptop of somebody whose key is in an ssh-agent.
            realm.operator(identity=replace(admin, connects_only=True)),
            realm.operator(identity=replace(admin, connects_only=True), key=self.ann.key),
            realm.operator(identity=admin, begins=self.now - 2 * DAY, life=DAY),
            realm.operator(identity=admin, begins=self.now + DAY),
        ]

    def _limited(self) -> list[Authority]:
        """Operators of this root who may not order this, or not here."""
        elsewhere = frozenset({self.other_tenant})
        return [
            self.realm.operator(Role.HELPDESK),
            self.realm.operator(Role.AUDITOR),
            *(
                self.realm.operator(identity=OperatorIdentity("bob", role, elsewhere))
                for role in Role
            ),
        ]


def fresh_machines(count: int) -> list[MachineId]:
    return [MachineId(fresh("mc")) for _ in range(count)]


def _operator(name: str) -> OperatorIdentity:
    return OperatorIdentity(name, Role.ADMIN, None)
