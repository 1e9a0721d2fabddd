"""What an agent does with lists of revoked operators, and what one does to its orders."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_settings

from agent.config import AgentHome, render_settings
from agent.tasks.believe import load_believed
from agent.tasks.revoked import load_revocations, take_along, take_revocations
from agent.tasks.standing import set_backup, verified_set
from agent.tasks.verify import Believed, verify, verify_standing
from protocol.action import CancelOrder, RunProgram, SetBackup, TakeSnapshot
from protocol.codec import encode_envelope, encode_order, encode_revocations
from protocol.codec import encode_signed_revocations as encode_signed
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role, key_hash
from protocol.ids import OrderId
from protocol.order import Envelope, Order, sign
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from tests.fakes.link_server import DAY, Authority, Realm, fresh, new_task

NOW = datetime.now(UTC).replace(microsecond=0)


class Desk:
    def __init__(self, path: Path) -> None:
        from agent.link.identity import load_identity

        self.realm = Realm()
        self.home = AgentHome(path / "agent")
        self.identity = self.realm.furnish(self.home, "127.0.0.1:1")
        self.known = load_identity(self.home)
        self.root = self.realm.root.certificate
        self.ann, self.bob = (
            self.realm.operator(identity=OperatorIdentity(name, Role.ADMIN, None), life=DAY)
            for name in ("ann", "bob")
        )

    @property
    def believed(self) -> Believed:
        return load_believed(self.home, self.known)

    def listed(self, version: int, *gone: Authority, at: datetime = NOW) -> bytes:
        entries = tuple(RevokedOperator("ann", key_hash(one.key.public_key()), at) for one in gone)
        data = encode_revocations(Revocations(version, NOW, entries))
        return encode_signed(sign_revocations(data, self.realm.root.key))

    def signed(self, by: Authority, **changes: object) -> Envelope:
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.identity.tenant,
            machines=(self.identity.machine,),
            action=TakeSnapshot(),
            issued_at=NOW,
            not_before=NOW,
            deliver_by=NOW + DAY,
            timeout=DAY,
        )
        changed = replace(order, **changes)  # type: ignore[arg-type]
        return sign(encode_order(changed), key=by.key, certificate=by.certificate)

    def verified(self, envelope: Envelope, now: datetime = NOW) -> str:
        return verify(
            encode_envelope(envelope),
            self.believed,
            now=now,
            latest_seen=NOW,
            executed_as=lambda _: None,
        ).signer


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def code_of(act: object, *args: object, **more: object) -> Code:
    with pytest.raises(SteadError) as caught:
        act(*args, **more)  # type: ignore[operator]
    return caught.value.code


def test_a_revoked_operators_orders_are_refused_whenever_they_say_they_were_signed(
    desk: Desk,
) -> None:
    before = desk.signed(desk.ann, issued_at=NOW - timedelta(hours=1))
    assert desk.verified(before) == "ann"
    take_revocations(desk.home, desk.root, desk.listed(1, desk.ann))
    after = desk.signed(desk.ann, issued_at=NOW + timedelta(minutes=1))
    for envelope in (before, after, desk.signed(desk.ann)):
        assert code_of(desk.verified, envelope) is Code.REVOKED
    assert desk.verified(desk.signed(desk.bob)) == "bob"


def test_a_wrong_clock_brings_nobody_back(desk: Desk) -> None:
    take_revocations(desk.home, desk.root, desk.listed(1, desk.ann, at=NOW))
    early = desk.signed(
        desk.ann, issued_at=NOW - timedelta(minutes=50), not_before=NOW - timedelta(minutes=50)
    )
    for now in (NOW - timedelta(minutes=50), NOW, NOW + timedelta(hours=5)):
        assert code_of(desk.verified, early, now) is Code.REVOKED


def test_a_second_signature_of_somebody_revoked_spoils_the_order(desk: Desk) -> None:
    take_revocations(desk.home, desk.root, desk.listed(1, desk.ann))
    good = desk.signed(desk.bob)
    hers = sign(good.order, key=desk.ann.key, certificate=desk.ann.certificate)
    both = replace(good, signatures=(*good.signatures, *hers.signatures))
    assert code_of(desk.verified, both) is Code.REVOKED


def test_a_list_is_kept_and_no_lower_or_forged_one_is_taken(desk: Desk) -> None:
    assert load_revocations(desk.home, desk.root).version == 0
    take_revocations(desk.home, desk.root, desk.listed(2, desk.ann))
    other = Realm()
    forged = encode_signed(
        sign_revocations(encode_revocations(Revocations(9, NOW, ())), other.root.key)
    )
    by_issuing = encode_signed(
        sign_revocations(encode_revocations(Revocations(9, NOW, ())), desk.realm.issuing.key)
    )
    take = take_revocations
    assert code_of(take, desk.home, desk.root, forged) is Code.BAD_SIGNATURE
    assert code_of(take, desk.home, desk.root, by_issuing) is Code.BAD_SIGNATURE
    assert code_of(take, desk.home, desk.root, desk.listed(1)) is Code.REPLAYED
    assert code_of(take, desk.home, desk.root, desk.listed(2)) is Code.REPLAYED
    take_along(desk.home, desk.root, desk.listed(1))
    assert load_revocations(desk.home, desk.root).version == 2
    assert code_of(desk.verified, desk.signed(desk.ann)) is Code.REVOKED


def test_with_a_damaged_list_nobody_is_believed(desk: Desk) -> None:
    desk.home.revocations.write_bytes(desk.listed(1, desk.ann)[:-1])
    assert code_of(desk.verified, desk.signed(desk.bob)) is Code.PRECONDITION
    assert code_of(take_revocations, desk.home, desk.root, desk.listed(9)) is Code.PRECONDITION


def test_an_order_says_which_list_its_signer_knew(desk: Desk) -> None:
    order = desk.signed(desk.bob, revocations_version=2)
    assert code_of(desk.verified, order) is Code.STALE_REVOCATIONS
    take_revocations(desk.home, desk.root, desk.listed(2, desk.ann))
    assert desk.verified(order) == "bob"


def test_a_backup_set_goes_on_that_was_taken_in_before_and_no_other(desk: Desk) -> None:
    action = SetBackup((b"/etc",), "daily")
    envelope = desk.signed(desk.ann, action=action)
    set_backup(desk.home, new_task(), action, envelope, now=NOW)
    take_revocations(desk.home, desk.root, desk.listed(1, desk.ann, at=NOW + timedelta(hours=1)))
    assert verified_set(desk.home, desk.believed) == action
    # The key was stolen before that: what it signed ends, however it is dated.
    take_revocations(desk.home, desk.root, desk.listed(2, desk.ann, at=NOW - DAY))
    assert code_of(verified_set, desk.home, desk.believed) is Code.REVOKED


def test_a_read_only_machine_lets_orders_look_and_its_backup_set_go_on(desk: Desk) -> None:
    action = SetBackup((b"/etc",), "daily")
    set_backup(desk.home, new_task(), action, desk.signed(desk.ann, action=action), now=NOW)
    settings = desk.home.load_settings()
    desk.home.settings.write_bytes(render_settings(replace_settings(settings, read_only=True)))
    assert desk.verified(desk.signed(desk.ann)) == "ann"
    for refused in (RunProgram(("true",)), action, CancelOrder(fresh("or"))):
        envelope = desk.signed(desk.ann, action=refused)
        assert code_of(desk.verified, envelope) is Code.DENIED
        assert code_of(verify_standing, envelope, desk.believed) is Code.DENIED
    assert verified_set(desk.home, desk.believed) == action


def test_an_order_for_later_is_still_good_when_its_time_has_come(desk: Desk) -> None:
    later = desk.signed(desk.bob, not_before=NOW + timedelta(hours=2))
    assert verify_standing(later, desk.believed).signer == "bob"
