"""Decide what becomes of an offered task: the only way in for an order.

Pure. The controller that brings an order is not trusted: whatever it says, an order
counts when an operator of this installation signed these very bytes for this machine,
now, and this machine's own administrator has not ruled its action out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from protocol.action import (
    NAMES,
    PutFile,
    RevokeStanding,
    RunScript,
    name_of,
)
from protocol.action_class import LOGS, ActionClass, class_of, is_any_file
from protocol.approval import check_approved
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import OrderId, TaskId
from protocol.order import (
    CLOCK_TOLERANCE,
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    Envelope,
    Order,
    OrderRejectedError,
    Signer,
    check_acceptable,
    signers_of,
)
from protocol.policy import Policy, check_policy_current, no_policy
from protocol.revocation import (
    NO_REVOCATIONS,
    Revocations,
    check_current,
    check_not_revoked,
)
from protocol.selection import NO_COMMANDS

_KNOWN_ACTIONS = frozenset(NAMES.values())


@dataclass(frozen=True, slots=True)
class Verified:
    """An order that this machine is to execute, and who signed it."""

    order: Order
    envelope: Envelope
    signer: str


@dataclass(frozen=True, slots=True)
class Believed:
    """What a machine judges orders by. `deny` are names of actions.

    `read_only`: orders that do more than look are refused.
    """

    root: x509.Certificate
    identity: MachineIdentity
    deny: Collection[str] = ()
    read_only: bool = False
    revocations: Revocations | SteadError = NO_REVOCATIONS
    """An error, which every order is then refused with, when the list cannot be used."""

    policy: Policy | SteadError | None = None
    """The tenant's policy; None for none, an error as with the list."""

    @property
    def policy_in_force(self) -> Policy:
        """The tenant's policy, or raise why it cannot be used."""
        if isinstance(self.policy, SteadError):
            raise self.policy
        return self.policy or no_policy(self.identity.tenant)

    @property
    def in_force(self) -> Revocations:
        """The list of revoked operators, or raise why it cannot be used."""
        if isinstance(self.revocations, SteadError):
            raise self.revocations
        return self.revocations


def verify(
    data: bytes,
    believed: Believed,
    *,
    now: datetime,
    latest_seen: datetime,
    executed_as: Callable[[OrderId], TaskId | None],
) -> Verified:
    """Return the order in a serialized envelope, or raise `SteadError` with the reason.

    `executed_as` is the journal's word: the task as which an order came before.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise InvalidError(f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes")
    envelope = decode_envelope(data)
    # A clock that was set back must not bring an operator's old certificate to life either.
    order, signers = _signed(envelope, believed, max(now, latest_seen))
    check_current(believed.in_force, order.revocations_version)
    check_policy_current(believed.policy_in_force, order.policy_version)
    check_acceptable(
        order,
        signers[0].identity,
        tenant=believed.identity.tenant,
        machine=believed.identity.machine,
        now=now,
        latest_seen=latest_seen,
    )
    signer = check_approved(order, signers, believed.policy_in_force).identity
    before = executed_as(order.id)
    if before is not None:
        raise OrderRejectedError(
            f"the order came before, as task {before}, and is not executed twice",
            code=Code.REPLAYED,
        )
    check_denied(order, believed)
    return Verified(order, envelope, signer.name)


def verify_standing(
    envelope: Envelope, believed: Believed, *, taken_in_at: datetime | None = None
) -> Verified:
    """Check again an order that goes on after it was accepted, before it acts once more.

    It was accepted in time, so times are not looked at again: the signer is believed
    as of when the order was signed. `taken_in_at` is for a standing order: when this machine
    took it in; see `protocol.revocation.check_not_revoked`. The policy counts as it is now.
    """
    read = decode_order(envelope.order)
    order, signers = _signed(
        envelope, believed, read.issued_at, until=read.deliver_by, taken_in_at=taken_in_at
    )
    began = max(order.issued_at, order.not_before)
    check_acceptable(
        order,
        signers[0].identity,
        tenant=believed.identity.tenant,
        machine=believed.identity.machine,
        now=began,
        latest_seen=began,
    )
    taken_in = taken_in_at is not None
    signer = check_approved(order, signers, believed.policy_in_force, taken_in=taken_in).identity
    check_denied(order, believed, standing=taken_in)
    return Verified(order, envelope, signer.name)


def _signed(
    envelope: Envelope,
    believed: Believed,
    at: datetime,
    *,
    until: datetime | None = None,
    taken_in_at: datetime | None = None,
) -> tuple[Order, tuple[Signer, ...]]:
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise InvalidError(f"an order has at most {MAX_SIGNATURES} signatures")
    signers = signers_of(envelope, root=believed.root, now=at, until=until)
    for signer in signers:
        check_not_revoked(believed.in_force, signer, taken_in_at=taken_in_at)
    return decode_order(envelope.order), signers


def check_denied(order: Order, believed: Believed, *, standing: bool = False) -> None:
    """Raise DENIED when this machine's own settings rule the action out.

    `standing` is for an order that was in force before: `read_only` stops new ones alone.
    """
    check_deny_list(believed)
    name = name_of(order.action)
    takes_away = isinstance(order.action, RevokeStanding)
    looks = class_of(order.action) is ActionClass.OBSERVE
    if believed.read_only and not (standing or looks or takes_away):
        raise OrderRejectedError(
            f"this machine's own settings let orders look and no more, and {name} does more; its "
            "administrator can change `read_only` in agent.toml"
        )
    if name in believed.deny:
        raise OrderRejectedError(
            f"this machine's own settings do not allow {name}; its administrator can change "
            "`deny` in agent.toml"
        )
    if isinstance(order.action, RunScript) and "run_program" in believed.deny:
        # A ceiling of old must not be got round by an action that came later.
        raise OrderRejectedError(
            "a script runs programs, and this machine's own settings do not allow run_program; "
            "its administrator can change `deny` in agent.toml"
        )
    if isinstance(order.action, PutFile) and "run_program" in believed.deny:
        raise OrderRejectedError(
            "a file can be put where it is run, and this machine's own settings do not allow "
            "run_program; its administrator can change `deny` in agent.toml"
        )
    if is_any_file(order.action) and "get_file" in believed.deny:
        raise OrderRejectedError(
            f"beyond {LOGS} a log may be any file, and this machine's own settings do not allow "
            "get_file; its administrator can change `deny` in agent.toml"
        )
    commands = getattr(order.action, "commands", NO_COMMANDS)
    if commands.any and "run_program" in believed.deny:
        raise OrderRejectedError(
            f"this {name} runs programs, and this machine's own settings do not allow "
            "run_program; its administrator can change `deny` in agent.toml"
        )


def check_deny_list(believed: Believed) -> None:
    """Raise DENIED when `deny` names what is no action: a misspelt ceiling is no missing one."""
    unknown = sorted(set(believed.deny) - _KNOWN_ACTIONS)
    if unknown:
        raise OrderRejectedError(
            f"this machine's settings deny {unknown[0][:80]!r}, which is no action; correct "
            f"`deny` in agent.toml, which knows: {', '.join(sorted(_KNOWN_ACTIONS))}"
        )


def believable_time(own: datetime, theirs: datetime) -> datetime | None:
    """The time to remember as seen: this machine's clock, when the controller's agrees.

    A clock that ran ahead for a while must not make every later order look expired,
    and a controller alone must not be able to say what time it is.
    """
    return own if abs(own - theirs) <= CLOCK_TOLERANCE else None
