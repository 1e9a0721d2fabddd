"""What an agent does with tenants' policies, and what one does to its orders."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.tasks.along import take_what_came_along
from agent.tasks.in_force import load_order as load_standing
from agent.tasks.in_force import take_in, verified_order
from agent.tasks.policy import load_policy, take_policy
from agent.tasks.verify import verify_standing
from protocol.action import RunProgram
from protocol.codec import decode_order, to_ms
from protocol.errors import Code
from protocol.identity import OperatorIdentity, Role
from protocol.ids import TenantId
from protocol.order import Envelope, sign
from protocol.policy import Policy, Rule, sign_policy
from protocol.policy_codec import encode_policy, encode_signed_policy
from protocol.standing import Standing
from tests.fakes.link_server import DAY, Authority, Realm, fresh
from tests.unit.agent.test_revoked import NOW, Desk, code_of

TWICE = Rule("run_program", second_above=0)
RUN = RunProgram(("true",))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def ruled(
    desk: Desk,
    version: int,
    *rules: Rule,
    by: Authority | None = None,
    tenant: TenantId | None = None,
) -> bytes:
    policy = Policy(tenant or desk.identity.tenant, version, NOW, rules)
    return encode_signed_policy(sign_policy(encode_policy(policy), (by or desk.realm.root).key))


def take(desk: Desk, data: bytes) -> Policy:
    return take_policy(desk.home, desk.root, desk.identity.tenant, data)


def also_by(envelope: Envelope, *others: Authority) -> Envelope:
    more = [sign(envelope.order, key=o.key, certificate=o.certificate) for o in others]
    signatures = (*envelope.signatures, *(one.signatures[0] for one in more))
    return replace(envelope, signatures=signatures)


def test_a_policy_is_kept_and_no_lower_forged_or_other_tenants_one_is_taken(desk: Desk) -> None:
    tenant = desk.identity.tenant
    assert load_policy(desk.home, desk.root, tenant).version == 0
    take(desk, ruled(desk, 2, TWICE))
    for wrong, code in (
        (ruled(desk, 1), Code.REPLAYED),
        (ruled(desk, 2), Code.REPLAYED),
        (ruled(desk, 9, by=desk.realm.issuing), Code.BAD_SIGNATURE),
        (ruled(desk, 9, by=desk.ann), Code.BAD_SIGNATURE),
        (ruled(desk, 9, by=Realm().root), Code.BAD_SIGNATURE),
        (ruled(desk, 9, tenant=TenantId(fresh("tn"))), Code.WRONG_TENANT),
    ):
        assert code_of(take, desk, wrong) is code
    assert load_policy(desk.home, desk.root, tenant).rules == (TWICE,)


def test_with_a_damaged_policy_nobody_is_obeyed(desk: Desk) -> None:
    desk.home.policy.write_bytes(ruled(desk, 1)[:-1])
    assert code_of(desk.verified, desk.signed(desk.bob)) is Code.PRECONDITION
    assert code_of(take, desk, ruled(desk, 9)) is Code.PRECONDITION


def test_an_order_says_which_policy_its_signer_knew_and_brings_it(desk: Desk) -> None:
    order = desk.signed(desk.bob, policy_version=2)
    assert code_of(desk.verified, order) is Code.STALE_POLICY
    take_what_came_along(desk.home, desk.believed, replace(order, policy=ruled(desk, 2)))
    assert desk.verified(order) == "bob"
    take_what_came_along(desk.home, desk.believed, replace(order, policy=ruled(desk, 1, TWICE)))
    assert load_policy(desk.home, desk.root, desk.identity.tenant).rules == ()


def test_two_operators_sign_where_the_policy_says_so(desk: Desk) -> None:
    one = desk.signed(desk.ann, action=RUN)
    assert desk.verified(one) == "ann"
    take(desk, ruled(desk, 1, TWICE))
    assert code_of(desk.verified, one) is Code.NEEDS_APPROVAL
    assert code_of(desk.verified, also_by(one, desk.ann)) is Code.DENIED
    assert desk.verified(also_by(one, desk.bob)) == "ann"
    # Judged anew when it is about to begin: what was accepted under the policy before.
    assert code_of(verify_standing, one, desk.believed) is Code.NEEDS_APPROVAL


def test_a_certificate_made_after_the_order_approves_it_and_goes_on_doing_so(desk: Desk) -> None:
    take(desk, ruled(desk, 1, TWICE))
    identity = OperatorIdentity("bob", Role.ADMIN, None)
    late = desk.realm.operator(identity=identity, begins=NOW + timedelta(hours=2), life=DAY)
    both = also_by(desk.signed(desk.ann, action=RUN), late)
    assert desk.verified(both, NOW + timedelta(hours=3)) == "ann"
    assert verify_standing(both, desk.believed).signer == "ann"
    # Not one that begins when the order is over.
    never = desk.realm.operator(identity=identity, begins=NOW + 2 * DAY, life=DAY)
    spoilt = also_by(desk.signed(desk.ann, action=RUN), never)
    assert code_of(verify_standing, spoilt, desk.believed) is Code.EXPIRED


def test_a_standing_order_outlives_a_stricter_count_and_no_ban(desk: Desk) -> None:
    standing = Standing("daily", to_ms(NOW + DAY))
    envelope = desk.signed(desk.ann, action=RUN, standing=standing)
    order = decode_order(envelope.order)
    take_in(desk.home, order, envelope, now=NOW, past=NOW)
    kept = load_standing(desk.home, order.id)
    take(desk, ruled(desk, 1, TWICE))
    assert verified_order(order.id, kept, desk.believed).order == order
    assert code_of(desk.verified, envelope) is Code.NEEDS_APPROVAL
    take(desk, ruled(desk, 2, Rule("run_program", forbid=True)))
    assert code_of(verified_order, order.id, kept, desk.believed) is Code.DENIED
