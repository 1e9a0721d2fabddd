"""Tenants' policies: who can make one, which is taken, and what it says of an order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.action import (
    ACTIONS,
    Action,
    CancelOrder,
    ChangeVaultSecret,
    CollectInventory,
    ControlService,
    PutFile,
    RunBackup,
    RunProgram,
    RunScript,
)
from protocol.approval import check_approved, check_may_order, judge
from protocol.codec import encode_revocations, encode_signed_revocations, to_ms
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.ids import MachineId, TenantId
from protocol.order import Order, Signer
from protocol.policy import (
    MAY_PROPOSE,
    NEVER,
    SECOND_ABOVE,
    SUBJECTS,
    Policy,
    Rule,
    check_policy_current,
    newer_policy,
    no_policy,
    sign_policy,
    terms_for,
)
from protocol.policy_codec import encode_policy, encode_signed_policy, read_policy
from protocol.revocation import Revocations, sign_revocations
from protocol.selection import Commands
from protocol.standing import Standing
from tests.property.orders import any_action
from tests.unit.protocol.signed import KEY, NOW, ORDER, ROOT, TENANT

RULES = (Rule("dangerous", second_above=3), Rule("run_script", roles=("admin",), second_above=0))
POLICY = Policy(TENANT, 4, NOW, RULES)
OTHER_TENANT = TenantId("tn_" + "7" * 26)
RUN = RunProgram(("true",))


def travelled(policy: Policy = POLICY, key: object = ROOT.key) -> bytes:
    return encode_signed_policy(sign_policy(encode_policy(policy), key))  # type: ignore[arg-type]


def code_of(act: object, *args: object, **more: object) -> Code:
    with pytest.raises(SteadError) as caught:
        act(*args, **more)  # type: ignore[operator]
    return caught.value.code


def signer(name: str, role: Role = Role.TECHNICIAN, *tenants: TenantId, key: bytes = b"") -> Signer:
    return Signer(OperatorIdentity(name, role, frozenset(tenants) or None), key or name.encode())


def for_many(count: int, action: Action = RUN, **changes: object) -> Order:
    machines = tuple(MachineId(f"mc_{number:026}") for number in range(count))
    return replace(ORDER, action=action, machines=machines, **changes)  # type: ignore[arg-type]


ANN, BOB = signer("ann"), signer("bob", Role.ADMIN)
HELPER = signer("hal", Role.HELPDESK)


def test_a_policy_arrives_as_it_was_signed_and_no_other_does() -> None:
    root = ROOT.certificate
    assert read_policy(travelled(), root, tenant=TENANT) == POLICY
    assert code_of(read_policy, travelled(key=KEY), root, tenant=TENANT) is Code.BAD_SIGNATURE
    assert code_of(read_policy, travelled()[:-1], root, tenant=TENANT) in {
        Code.INVALID,
        Code.BAD_SIGNATURE,
    }
    assert code_of(read_policy, travelled(), root, tenant=OTHER_TENANT) is Code.WRONG_TENANT
    assert code_of(read_policy, b"\0" * 70_000, root, tenant=TENANT) is Code.INVALID
    listed = encode_revocations(Revocations(4, NOW, ()))
    other = encode_signed_revocations(sign_revocations(listed, ROOT.key))
    assert code_of(read_policy, other, root, tenant=TENANT) is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("run_everything"),),
        (Rule("run_script"), Rule("run_script", forbid=True)),
        (Rule("run_script", roles=("auditor",)),),
        (Rule("run_script", roles=("king",)),),
        (Rule("cancel_order", forbid=True),),
        (Rule("revoke_standing", second_above=0),),
        (Rule("run_script", longest_days=401),),
    ],
)
def test_a_policy_without_sense_is_refused_although_the_root_signed_it(
    rules: tuple[Rule, ...],
) -> None:
    data = travelled(replace(POLICY, rules=rules))
    assert code_of(read_policy, data, ROOT.certificate, tenant=TENANT) is Code.INVALID


def test_a_version_only_grows() -> None:
    assert newer_policy(no_policy(TENANT), POLICY)
    assert not newer_policy(POLICY, POLICY)
    assert code_of(newer_policy, POLICY, replace(POLICY, version=3)) is Code.REPLAYED
    assert code_of(newer_policy, POLICY, replace(POLICY, rules=())) is Code.REPLAYED
    other = replace(POLICY, tenant=OTHER_TENANT, version=9)
    assert code_of(newer_policy, POLICY, other) is Code.WRONG_TENANT
    check_policy_current(POLICY, 4)
    assert code_of(check_policy_current, POLICY, 5) is Code.STALE_POLICY


def test_without_a_policy_two_operators_sign_what_is_dangerous_on_many_machines() -> None:
    none = no_policy(TENANT)
    assert check_approved(for_many(50), [ANN], none) == ANN
    assert code_of(check_approved, for_many(51), [ANN], none) is Code.NEEDS_APPROVAL
    assert check_approved(for_many(51), [ANN, BOB], none) == ANN
    assert check_approved(for_many(500, CollectInventory()), [HELPER], none) == HELPER
    assert check_approved(for_many(500, ControlService("a", "stop")), [ANN], none) == ANN
    assert code_of(check_approved, for_many(1), [HELPER], none) is Code.DENIED


def test_two_signatures_are_those_of_two_people_who_may_order_it() -> None:
    many = for_many(4)
    same_key = signer("andy", key=ANN.key)
    same_name = signer("ann", key=b"another")
    for second in (ANN, same_key, same_name, signer("eve", Role.AUDITOR)):
        for signers in ([ANN, second], [second, ANN]):
            assert code_of(check_approved, many, signers, POLICY) is Code.DENIED
    elsewhere = signer("eve", Role.ADMIN, OTHER_TENANT)
    assert code_of(check_approved, many, [ANN, elsewhere], POLICY) is Code.WRONG_TENANT
    assert code_of(check_approved, many, [ANN, HELPER], POLICY) is Code.NEEDS_APPROVAL
    assert code_of(check_approved, many, [HELPER, ANN], POLICY) is Code.NEEDS_APPROVAL
    assert check_approved(many, [HELPER, ANN, BOB], POLICY) == ANN


def test_what_the_help_desk_proposed_is_the_order_of_whoever_signed_it_after() -> None:
    approval = judge(for_many(1), [HELPER, BOB], POLICY)
    assert (approval.counted, approval.proposed, approval.missing) == ((BOB,), (HELPER,), 0)
    assert judge(for_many(1), [HELPER], POLICY).missing == 1
    check_may_order(RUN, HELPER.identity, POLICY, proposing=True)
    assert code_of(check_may_order, RUN, HELPER.identity, POLICY) is Code.DENIED
    auditor = signer("eve", Role.AUDITOR).identity
    assert code_of(check_may_order, RUN, auditor, POLICY, proposing=True) is Code.DENIED


def test_what_is_ruled_of_programs_holds_for_all_that_runs_them() -> None:
    policy = replace(POLICY, rules=(Rule("run_program", forbid=True),))
    script = RunScript("sh", b"true")
    backup = RunBackup(commands=Commands(before=("true",)))
    for action in (RUN, script, backup, PutFile(b"/etc/cron.d/x")):
        assert code_of(judge, for_many(1, action), [ANN, BOB], policy) is Code.DENIED
    assert judge(for_many(1, RunBackup()), [ANN], policy).is_whole
    # A lax rule for scripts takes nothing from a strict one for programs.
    rules = (Rule("run_program", second_above=0), Rule("run_script", second_above=NEVER))
    assert terms_for(script, replace(POLICY, rules=rules)).second_above == 0


def test_an_actions_rule_is_stronger_than_its_classs() -> None:
    rules = (Rule("routine", second_above=0), Rule("control_service", second_above=NEVER))
    policy = replace(POLICY, rules=rules)
    assert terms_for(ControlService("a", "stop"), policy).needed(900) == 1
    assert terms_for(RunBackup(), policy).needed(1) == 2


def test_a_standing_order_is_bounded_and_its_signatures_are_counted_once() -> None:
    policy = replace(POLICY, rules=(Rule("run_program", longest_days=7, second_above=0),))
    standing = Standing("daily", to_ms(NOW + timedelta(days=7)))
    week = for_many(1, standing=standing, issued_at=NOW)
    assert code_of(check_approved, week, [ANN], policy) is Code.NEEDS_APPROVAL
    assert check_approved(week, [ANN], policy, taken_in=True) == ANN
    longer = replace(week, standing=replace(standing, ends_at_ms=standing.ends_at_ms + 1))
    assert code_of(check_approved, longer, [ANN, BOB], policy, taken_in=True) is Code.DENIED


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    roles = st.lists(st.sampled_from(sorted(role.value for role in MAY_PROPOSE)), unique=True)
    subjects = draw(st.lists(st.sampled_from(sorted(SUBJECTS)), unique=True, max_size=6))
    rules = [
        Rule(
            subject,
            draw(st.booleans()),
            tuple(draw(roles)),
            draw(st.none() | st.integers(0, NEVER)),
            draw(st.integers(0, 400)),
        )
        for subject in subjects
    ]
    return replace(POLICY, rules=tuple(rules))


@given(policies())
def test_every_policy_travels_unchanged(policy: Policy) -> None:
    from protocol.policy_codec import decode_policy

    assert decode_policy(encode_policy(policy)) == policy


@given(any_action(), policies())
def test_no_policy_lets_the_help_desk_count_for_what_is_dangerous(
    action: Action, policy: Policy
) -> None:
    from protocol.action_class import ActionClass, class_of

    terms = terms_for(action, policy)
    assert Role.AUDITOR not in terms.roles
    if class_of(action) is ActionClass.DANGEROUS:
        assert Role.HELPDESK not in terms.roles
    if isinstance(action, ChangeVaultSecret):
        assert terms.roles <= {Role.ADMIN}
    if isinstance(action, CancelOrder):
        assert not terms.forbidden
        assert terms.needed(20_000) == 1


def test_every_class_says_when_a_second_operator_is_needed() -> None:
    assert set(SECOND_ABOVE) <= {one for one in SUBJECTS if one not in ACTIONS}
    assert len(SECOND_ABOVE) == 3
