"""Between the wire's messages and our records.

`to_pb` and `from_pb` only translate; what a field means is said in the `.proto`.
Bytes that cannot be read, fields that are not known and actions that are not known
raise `SteadError` with a code of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

from cryptography import x509
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from protocol.action import ACTIONS, Action, RestorePart, name_of
from protocol.errors import Code, InvalidError, SteadError
from protocol.holder import Holder
from protocol.ids import MachineId, OrderId, TaskId, TenantId, check_id, check_name
from protocol.limits import Limits
from protocol.moment import from_ms as from_ms  # noqa: PLC0414 - with all that messages say
from protocol.moment import to_ms as to_ms  # noqa: PLC0414
from protocol.order import Envelope, Order, Signature
from protocol.outcome import Outcome, OutcomeState
from protocol.revocation import (
    DistrustedAuthority,
    Revocations,
    RevokedOperator,
    SignedRevocations,
    check_signed,
    checked,
)
from protocol.rollout import Amount, Rollout
from protocol.selection import Commands, CommandStream, Rules
from protocol.shown import shown_text
from protocol.standing import Standing
from protocol.unlock import Unlock
from protocol.v1 import link_pb2, order_pb2, refusal_pb2, revocation_pb2, unlock_pb2

M = TypeVar("M", bound=Message)

REVISION = 6
"""The newest revision of the protocol that this release speaks.

2 knows `RevocationsChanged`, 3 runs of standing orders, 4 the ratchet, 5 `PolicyChanged`,
6 witnesses of the audit logs.
"""

MAX_ORDER_BYTES = 1024 * 1024
MAX_REFUSAL = 4000
MAX_REVOCATIONS_BYTES = 512 * 1024
INNER: Mapping[str, type[Any]] = {
    "BackupRules": Rules,
    "BackupCommands": Commands,
    "BackupStream": CommandStream,
    "RestorePart": RestorePart,
    "Limits": Limits,
    "Amount": Amount,
}
"""The records of messages inside messages."""


def read_message(kind: type[M], data: bytes) -> M:
    """Parse a message that must be understood whole."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidError(f"these bytes are not a {kind.DESCRIPTOR.name}") from error
    refuse_unknown(message)
    return message


def refuse_unknown(message: Message) -> None:
    """Raise UNKNOWN_FIELD when a message, or one inside it, has a field we do not know.

    What is not understood is not obeyed: a field may narrow what an order allows.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number = unknown[0].field_number
        raise SteadError(
            f"{message.DESCRIPTOR.full_name} has a field number {number} that this release "
            "does not know; upgrade this side",
            code=Code.UNKNOWN_FIELD,
        )
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else (value,):
            refuse_unknown(inner)


def order_to_pb(order: Order) -> order_pb2.Order:
    """An order as a message."""
    message = order_pb2.Order(
        order_id=order.id,
        tenant_id=order.tenant,
        machine_ids=order.machines,
        issued_at_ms=to_ms(order.issued_at),
        not_before_ms=to_ms(order.not_before),
        deliver_by_ms=to_ms(order.deliver_by),
        timeout_s=int(order.timeout.total_seconds()),
        reason=order.reason,
        repeatable=order.repeatable,
        windows=order.windows,
        catch_up=order.catch_up,
        retry_of=order.retry_of or "",
        policy_version=order.policy_version,
        revocations_version=order.revocations_version,
    )
    if order.rollout is not None:
        message.rollout.MergeFrom(order_pb2.Rollout(**_used(order.rollout)))
        message.rollout.SetInParent()
    if order.standing is not None:
        message.standing.MergeFrom(order_pb2.Standing(**_used(order.standing)))
        message.standing.SetInParent()
    slot = getattr(message, name_of(order.action))
    slot.SetInParent()
    slot.MergeFrom(type(slot)(**_used(order.action)))
    return message


def _used(record: Any) -> dict[str, Any]:
    """The fields of a record that say something.

    An inner message of nothing but defaults means the same as none, and a release that does
    not know it refuses the whole order.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, tuple(INNER.values())):
            value = _used(value)
        elif isinstance(value, tuple):
            value = [_used(one) if isinstance(one, tuple(INNER.values())) else one for one in value]
        if value:
            values[field.name] = value
    return values


def encode_order(order: Order) -> bytes:
    """The bytes that an operator signs."""
    return order_to_pb(order).SerializeToString(deterministic=True)


def decode_order(data: bytes) -> Order:
    """Read an order's bytes; INVALID, UNKNOWN_FIELD or UNKNOWN_ACTION when it cannot be."""
    if len(data) > MAX_ORDER_BYTES:
        raise InvalidError(f"an order has at most {MAX_ORDER_BYTES} bytes")
    message = order_pb2.Order()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidError("these bytes are not an Order") from error
    name = message.WhichOneof("action")
    if name is None:
        raise SteadError(
            "the order's action is not known to this release; upgrade the agent",
            code=Code.UNKNOWN_ACTION,
        )
    refuse_unknown(message)
    return Order(
        id=OrderId(check_id("or", message.order_id)),
        tenant=TenantId(check_id("tn", message.tenant_id)),
        machines=tuple(MachineId(check_id("mc", m)) for m in message.machine_ids),
        action=_action(name, getattr(message, name)),
        issued_at=from_ms(message.issued_at_ms),
        not_before=from_ms(message.not_before_ms),
        deliver_by=from_ms(message.deliver_by_ms),
        timeout=timedelta(seconds=message.timeout_s),
        reason=message.reason,
        repeatable=message.repeatable,
        rollout=_record(Rollout, message.rollout) if message.HasField("rollout") else None,
        windows=tuple(message.windows),
        catch_up=message.catch_up,
        retry_of=OrderId(check_id("or", message.retry_of)) if message.retry_of else None,
        policy_version=message.policy_version,
        revocations_version=message.revocations_version,
        standing=_record(Standing, message.standing) if message.HasField("standing") else None,
    )


def _action(name: str, message: Message) -> Action:
    action: Action = _record(ACTIONS[name], message)
    return action


def _record(kind: type[Any], message: Message) -> Any:
    """A record of a message whose fields have the same names, and of those inside it."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = getattr(message, field.name)
        if isinstance(value, (str, bytes, bool, int)):
            values[field.name] = value
        elif isinstance(value, Message):
            values[field.name] = _record(INNER[value.DESCRIPTOR.name], value)
        elif isinstance(value, Mapping):
            values[field.name] = dict(value)
        else:
            values[field.name] = tuple(
                _record(INNER[one.DESCRIPTOR.name], one) if isinstance(one, Message) else one
                for one in value
            )
    return kind(**values)


def encode_envelope(envelope: Envelope) -> bytes:
    """An envelope's bytes."""
    return order_pb2.Envelope(
        order=envelope.order,
        signatures=[
            order_pb2.Signature(certificate=s.certificate, signature=s.signature)
            for s in envelope.signatures
        ],
        revocations=envelope.revocations,
        policy=envelope.policy,
    ).SerializeToString(deterministic=True)


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope's bytes; says nothing about its signatures."""
    message = read_message(order_pb2.Envelope, data)
    return Envelope(
        message.order,
        tuple(Signature(s.certificate, s.signature) for s in message.signatures),
        message.revocations,
        message.policy,
    )


def encode_unlock(unlock: Unlock) -> bytes:
    """What unlocks a connection, as it travels."""
    return unlock_pb2.Unlock(
        certificate=unlock.certificate, until_ms=unlock.until_ms, signature=unlock.signature
    ).SerializeToString(deterministic=True)


def decode_unlock(data: bytes) -> Unlock:
    """Read what unlocks a connection; INVALID when it cannot be read."""
    message = read_message(unlock_pb2.Unlock, data)
    return Unlock(message.certificate, message.until_ms, message.signature)


def encode_revocations(revocations: Revocations) -> bytes:
    """The bytes that the root signs."""
    return revocation_pb2.Revocations(
        version=revocations.version,
        issued_at_ms=to_ms(revocations.issued_at),
        operators=[
            revocation_pb2.RevokedOperator(
                name=one.name, key_hash=one.key_hash, revoked_at_ms=to_ms(one.revoked_at)
            )
            for one in revocations.operators
        ],
        authorities=[
            revocation_pb2.DistrustedAuthority(
                key_hash=one.key_hash, name=one.name, distrusted_at_ms=to_ms(one.distrusted_at)
            )
            for one in revocations.authorities
        ],
    ).SerializeToString(deterministic=True)


def decode_revocations(data: bytes) -> Revocations:
    """Read what the root signed; `SteadError` when it cannot be."""
    message = read_message(revocation_pb2.Revocations, data)
    return Revocations(
        message.version,
        from_ms(message.issued_at_ms),
        tuple(
            RevokedOperator(check_name(one.name), one.key_hash, from_ms(one.revoked_at_ms))
            for one in message.operators
        ),
        tuple(
            DistrustedAuthority(one.key_hash, one.name, from_ms(one.distrusted_at_ms))
            for one in message.authorities
        ),
    )


def encode_signed_revocations(signed: SignedRevocations) -> bytes:
    """A signed list as it travels."""
    return revocation_pb2.SignedRevocations(
        list=signed.list, signature=signed.signature
    ).SerializeToString(deterministic=True)


def read_revocations(data: bytes, root: x509.Certificate) -> Revocations:
    """Read a list that anybody may have sent.

    BAD_SIGNATURE when this root did not sign these very bytes, `SteadError` when what it
    signed cannot be understood.
    """
    if len(data) > MAX_REVOCATIONS_BYTES:
        raise InvalidError(f"a list of revoked operators has at most {MAX_REVOCATIONS_BYTES} bytes")
    message = read_message(revocation_pb2.SignedRevocations, data)
    check_signed(SignedRevocations(message.list, message.signature), root)
    return checked(decode_revocations(message.list))


def outcome_to_pb(outcome: Outcome) -> link_pb2.TaskOutcome:
    """An outcome as a message."""
    return link_pb2.TaskOutcome(
        task_id=outcome.task,
        state=link_pb2.OutcomeState.Value(f"OUTCOME_STATE_{outcome.state.name}"),
        code=outcome.code,
        message=outcome.message,
        exit_code=outcome.exit_code,
        result=outcome.result,
        started_at_ms=to_ms(outcome.started_at),
        ended_at_ms=to_ms(outcome.ended_at),
        output_truncated=outcome.output_truncated,
    )


def outcome_from_pb(message: link_pb2.TaskOutcome) -> Outcome:
    """Read an outcome; INVALID when its state is not known."""
    try:
        name = link_pb2.OutcomeState.Name(message.state).removeprefix("OUTCOME_STATE_")
        state = OutcomeState[name]
    except (ValueError, KeyError):
        raise InvalidError(f"{message.state} is not a state that a task can end in") from None
    return Outcome(
        task=TaskId(message.task_id),
        state=state,
        code=message.code,
        message=message.message,
        exit_code=message.exit_code,
        result=message.result,
        started_at=from_ms(message.started_at_ms) if message.started_at_ms else None,
        ended_at=from_ms(message.ended_at_ms) if message.ended_at_ms else None,
        output_truncated=message.output_truncated,
    )


def encode_holder(holder: Holder) -> bytes:
    """A holder as it travels beside Hello."""
    message = link_pb2.Holder(token=holder.token, hardware=holder.hardware)
    return message.SerializeToString(deterministic=True)


def decode_holder(data: bytes) -> Holder:
    """Read what `encode_holder` made; INVALID for bytes that cannot be read."""
    message = read_message(link_pb2.Holder, data)
    return Holder(message.token, message.hardware)


def refusal_to_pb(error: SteadError) -> refusal_pb2.Refusal:
    """An error as it travels."""
    return refusal_pb2.Refusal(code=error.code, message=str(error))


def refusal_from_pb(message: refusal_pb2.Refusal) -> SteadError:
    """The error that a peer meant; a code that is not known here becomes INTERNAL.

    Its words are shown to people, whoever the peer is: they are cut, and steer no terminal.
    """
    known = message.code in {code.value for code in Code}
    words = shown_text(message.message, longest=MAX_REFUSAL)
    return SteadError(words, code=Code(message.code) if known else Code.INTERNAL)
