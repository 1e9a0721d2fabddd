"""Who may order what on a tenant's machines, and how many operators have to sign it.

Pure. What is built in holds for everybody; a tenant's policy, which the root signs, changes
it. Machines judge every order by the policy that they have, and the controller judges by the
same functions, as a service to operators. A policy's version only grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.action import (
    ACTIONS,
    Action,
    CancelOrder,
    ChangeVaultSecret,
    PutFile,
    RevokeStanding,
    RunScript,
    name_of,
)
from protocol.action_class import ActionClass, class_of
from protocol.document import check_document, is_newer, signature_over
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import Role
from protocol.ids import TenantId
from protocol.order import MAY_ACT, MAY_CHANGE_KEYS, MAY_ORDER
from protocol.selection import NO_COMMANDS
from protocol.standing import LONGEST

DOMAIN = b"stead policy v1\0"
NEVER = (1 << 32) - 1
"""More machines than an order can name: no second operator is ever needed."""

SECOND_ABOVE: Mapping[ActionClass, int] = {
    ActionClass.OBSERVE: NEVER,
    ActionClass.ROUTINE: NEVER,
    ActionClass.DANGEROUS: 50,
}
"""Above so many machines a second operator has to sign, where no policy says otherwise."""

MAY_PROPOSE = MAY_ACT | {Role.HELPDESK}
"""Whose signature may stand on an order without counting."""

TAKES_AWAY = (CancelOrder, RevokeStanding)
"""What ends other orders: nobody has to wait for a second one to stop something."""

PROGRAM = "run_program"
SUBJECTS = frozenset(ACTIONS) | {one.value for one in ActionClass}


@dataclass(frozen=True, slots=True)
class Rule:
    """For a class of actions or for one action. What is empty or None says nothing."""

    subject: str
    forbid: bool = False
    roles: tuple[str, ...] = ()
    second_above: int | None = None
    longest_days: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """A tenant's policy, as the root signed it. Version 0 is none: what is built in holds."""

    tenant: TenantId
    version: int
    issued_at: datetime
    rules: tuple[Rule, ...] = ()

    def rule(self, subject: str) -> Rule:
        """What is said of a class or of an action; a rule that says nothing when there is none."""
        return next((one for one in self.rules if one.subject == subject), Rule(subject))


def no_policy(tenant: TenantId) -> Policy:
    """What holds for a tenant to which the root has given no policy."""
    return Policy(tenant, 0, datetime(1970, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A policy's exact bytes with the root's signature, in DER."""

    policy: bytes
    signature: bytes


def sign_policy(data: bytes, key: ec.EllipticCurvePrivateKey) -> SignedPolicy:
    """Sign a policy's bytes with the root's key."""
    return SignedPolicy(data, signature_over(DOMAIN, data, key))


def check_signed_policy(signed: SignedPolicy, root: x509.Certificate) -> None:
    """Raise BAD_SIGNATURE unless this root signed these very bytes as a policy."""
    check_document(DOMAIN, signed.policy, signed.signature, root, what="the tenant's policy")


def checked_policy(policy: Policy) -> Policy:
    """The policy, unless it makes no sense: then INVALID."""
    if policy.version < 1:
        raise InvalidError("a policy has a version from 1 on")
    subjects = [rule.subject for rule in policy.rules]
    if len(set(subjects)) != len(subjects):
        raise InvalidError("a policy has one rule for a class or an action")
    for rule in policy.rules:
        _check_rule(rule)
    return policy


def _check_rule(rule: Rule) -> None:
    if rule.subject not in SUBJECTS:
        raise InvalidError(
            f"{rule.subject[:80]!r} is neither a class nor an action; there are: "
            f"{', '.join(sorted(SUBJECTS))}"
        )
    kind = ACTIONS.get(rule.subject)
    if kind is not None and issubclass(kind, TAKES_AWAY):
        raise InvalidError(f"{rule.subject} ends other orders and is left to whoever may order")
    allowed = {role.value for role in MAY_PROPOSE}
    if wrong := [role for role in rule.roles if role not in allowed]:
        raise InvalidError(
            f"{wrong[0][:40]!r} can order nothing; roles that can: {', '.join(sorted(allowed))}"
        )
    if rule.second_above is not None and not 0 <= rule.second_above <= NEVER:
        raise InvalidError("a number of machines is between 0 and 4294967295")
    if not 0 <= rule.longest_days <= LONGEST.days:
        raise InvalidError(f"a standing order lasts from 1 to {LONGEST.days} days")


def newer_policy(present: Policy, offered: Policy) -> bool:
    """True when an offered policy is to be taken, false when it is the present one.

    Raises WRONG_TENANT for another tenant's, REPLAYED for a lower version and for another
    policy of the same version.
    """
    if offered.tenant != present.tenant:
        raise SteadError("the policy is another tenant's", code=Code.WRONG_TENANT)
    return is_newer(present, offered, what="a policy")


def check_policy_current(policy: Policy, wanted: int) -> None:
    """Raise STALE_POLICY when an order's signer knew a later policy than this machine."""
    if wanted > policy.version:
        raise SteadError(
            f"the order's signer knew version {wanted} of the tenant's policy, and this machine "
            f"has been given no later one than {policy.version}",
            code=Code.STALE_POLICY,
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy says of one action. `longest` is of a standing order."""

    forbidden: bool
    roles: frozenset[Role]
    second_above: int
    longest: timedelta

    def needed(self, machines: int) -> int:
        """How many operators have to sign an order for so many machines."""
        return 2 if machines > self.second_above else 1


def terms_for(action: Action, policy: Policy) -> Terms:
    """What holds for an action: the strictest of what is said of all that it does.

    A script, and a backup that runs programs, run programs, and a file can be put where it is
    run: what is ruled of `run_program` holds for them as well. The help desk orders nothing
    dangerous, whatever a policy says, and tenants' keys are changed by administrators.
    """
    kind = class_of(action)
    built_in = MAY_CHANGE_KEYS if isinstance(action, ChangeVaultSecret) else MAY_ORDER[kind]
    if isinstance(action, TAKES_AWAY):
        return Terms(False, built_in, NEVER, LONGEST)
    said = [_said(name, kind, policy) for name in _names_of(action)]
    roles = frozenset[Role].intersection(*(one.roles or built_in for one in said))
    if kind is ActionClass.DANGEROUS:
        roles -= {Role.HELPDESK}
    if isinstance(action, ChangeVaultSecret):
        roles &= MAY_CHANGE_KEYS
    return Terms(
        any(one.forbidden for one in said),
        roles,
        min(one.second_above for one in said),
        min(one.longest for one in said),
    )


def _said(name: str, kind: ActionClass, policy: Policy) -> Terms:
    of_action, of_class = policy.rule(name), policy.rule(kind.value)
    above = of_action.second_above
    if above is None:
        above = of_class.second_above
    if above is None:
        above = SECOND_ABOVE[kind]
    days = of_action.longest_days or of_class.longest_days or LONGEST.days
    roles = of_action.roles or of_class.roles
    return Terms(
        of_action.forbid or of_class.forbid,
        frozenset(map(Role, roles)),
        above,
        timedelta(days=days),
    )


def _names_of(action: Action) -> tuple[str, ...]:
    name = name_of(action)
    runs = isinstance(action, RunScript | PutFile) or getattr(action, "commands", NO_COMMANDS).any
    return (name, PROGRAM) if runs else (name,)
