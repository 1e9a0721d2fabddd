"""Whether the operators who signed an order are the ones it takes. Pure.

Every signature on an order is good, or the order is refused before this is asked
(`protocol.order.signers_of`). Some do not count: who proposes what the role does not reach
to signs as well, and the order is that of whoever signed it and may order it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.action import Action, name_of
from protocol.errors import Code, DeniedError, SteadError
from protocol.identity import OperatorIdentity
from protocol.order import Order, Signer
from protocol.policy import MAY_PROPOSE, Policy, Terms, terms_for


@dataclass(frozen=True, slots=True)
class Approval:
    """Who signed: those who count, those who only proposed, and how many it takes."""

    counted: tuple[Signer, ...]
    proposed: tuple[Signer, ...]
    needed: int

    @property
    def is_whole(self) -> bool:
        """Nobody else has to sign."""
        return len(self.counted) >= self.needed

    @property
    def missing(self) -> int:
        """How many operators have still to sign."""
        return max(0, self.needed - len(self.counted))


def judge(order: Order, signers: Sequence[Signer], policy: Policy) -> Approval:
    """Say whose signatures count.

    Raises DENIED for what the policy forbids, for somebody who signed twice, whether by name
    or by key, and for a role that can propose nothing; WRONG_TENANT for a signer who has no
    say in the tenant.
    """
    terms = terms_for(order.action, policy)
    _check_forbidden(order, terms, policy)
    names, keys = set[str](), set[bytes]()
    counted, proposed = [], []
    for signer in signers:
        who = signer.identity
        if not who.may_see(order.tenant):
            raise SteadError(f"{who.name} has no say in this tenant", code=Code.WRONG_TENANT)
        if who.name in names or signer.key in keys:
            raise DeniedError(
                f"{who.name} signed twice, by name or by key: two signatures are those of two "
                "operators"
            )
        names.add(who.name)
        keys.add(signer.key)
        if who.role in terms.roles:
            counted.append(signer)
        elif who.role in MAY_PROPOSE:
            proposed.append(signer)
        else:
            raise DeniedError(f"{who.name} is {who.role} and may not order {name_of(order.action)}")
    return Approval(tuple(counted), tuple(proposed), terms.needed(len(order.machines)))


def check_approved(
    order: Order, signers: Sequence[Signer], policy: Policy, *, taken_in: bool = False
) -> Signer:
    """The operator whose order it is, or raise as `judge` does.

    Besides, DENIED when nobody signed who may order it, NEEDS_APPROVAL when a second one has
    to. `taken_in` is for a standing order that was in force before: how many have to sign was
    judged when it was taken in.
    """
    approval = judge(order, signers, policy)
    if not approval.counted:
        first = approval.proposed[0].identity
        raise DeniedError(
            f"{first.name} is {first.role} and may not order {name_of(order.action)}, and nobody "
            "else has signed it"
        )
    if not (taken_in or approval.is_whole):
        raise SteadError(
            f"{name_of(order.action)} on {len(order.machines)} machines takes the signatures of "
            f"{approval.needed} operators and has {len(approval.counted)}",
            code=Code.NEEDS_APPROVAL,
        )
    return approval.counted[0]


def check_holds(order: Order, approval: Approval, policy: Policy) -> None:
    """Raise STALE_POLICY when machines might take an order before all have signed it.

    `approval` is by the newest policy that its next signer knows, with that signature. Where
    others have to sign as well, and the order names an earlier policy, a machine that was given
    no later one might ask for fewer.
    """
    if not approval.is_whole and order.policy_version < policy.version:
        raise SteadError(
            f"version {policy.version} of the tenant's policy wants {approval.missing} more to "
            f"sign it, and {order.id} was signed under version {order.policy_version}, by which a "
            "machine might not wait for them: have it ordered again",
            code=Code.STALE_POLICY,
        )


def check_may_order(
    action: Action, who: OperatorIdentity, policy: Policy, *, proposing: bool = False
) -> None:
    """Raise DENIED when an operator's signature on such an order would not count.

    With `proposing`, when it could not even propose it.
    """
    terms = terms_for(action, policy)
    if terms.forbidden:
        raise _forbidden(action, policy)
    if who.role not in (MAY_PROPOSE if proposing else terms.roles):
        how = ""
        if who.role in MAY_PROPOSE:
            others = " or ".join(sorted(role.value for role in terms.roles)) or "nobody"
            how = f"; hand it in with --propose, for approval by: {others}"
        raise DeniedError(f"{who.name} is {who.role} and may not order {name_of(action)}{how}")


def _forbidden(action: Action, policy: Policy) -> DeniedError:
    return DeniedError(f"version {policy.version} of the tenant's policy forbids {name_of(action)}")


def _check_forbidden(order: Order, terms: Terms, policy: Policy) -> None:
    if terms.forbidden:
        raise _forbidden(order.action, policy)
    if order.standing is not None and order.standing.ends_at - order.issued_at > terms.longest:
        raise DeniedError(
            f"by version {policy.version} of the tenant's policy a standing order of "
            f"{name_of(order.action)} ends within {terms.longest.days} days of its signing"
        )
