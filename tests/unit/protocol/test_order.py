"""A machine obeys what an operator signed for it and now, and says why not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.keys import new_key
from protocol.action import (
    ACTIONS,
    Action,
    ApplyUpdates,
    CancelOrder,
    ChangeVaultSecret,
    CollectInventory,
    CompareLive,
    ControlPower,
    ControlService,
    KillProcess,
    ReadLog,
    Rehome,
    RestoreFiles,
    RevokeStanding,
    RunBackup,
    RunProgram,
    RunScript,
    SetBackup,
)
from protocol.action_class import CLASSES, ActionClass, class_of
from protocol.codec import (
    MAX_ORDER_BYTES,
    decode_order,
    encode_envelope,
    encode_order,
    order_to_pb,
    to_ms,
)
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.ids import MachineId, OrderId, TenantId
from protocol.order import (
    LONGEST_DELIVERY,
    Envelope,
    Order,
    Signature,
    sign,
    signed_bytes,
    signers_of,
)
from protocol.rollout import EVERYTHING, Rollout
from protocol.selection import Commands
from protocol.standing import Standing
from protocol.v1 import order_pb2
from tests.unit.protocol.signed import (
    ANN,
    ISSUING,
    KEY,
    MACHINE,
    NOW,
    ORDER,
    ROOT,
    TENANT,
    accept,
    authority,
    machine_certificate,
    operator,
    signed,
)

DAY = timedelta(days=1)
OTHER_TENANT = TenantId("tn_" + "1" * 26)
OTHER_MACHINE = MachineId("mc_" + "1" * 26)


def code_of(accepting: Callable[[], object]) -> Code:
    with pytest.raises(SteadError) as caught:
        accepting()
    return caught.value.code


def test_an_order_that_was_signed_for_this_machine_and_now_is_accepted() -> None:
    assert accept(signed()) == (ORDER, OperatorIdentity("ann", Role.TECHNICIAN, None))


EDITS: list[dict[str, Any]] = [
    {"id": OrderId("or_" + "1" * 26)},
    {"tenant": OTHER_TENANT},
    {"machines": ()},
    {"machines": (MACHINE, OTHER_MACHINE)},
    {"action": CollectInventory()},
    {"action": CollectInventory(("cpu", "disks"))},
    {"action": RunProgram(("rm", "-rf", "/"))},
    {"issued_at": NOW - DAY},
    {"not_before": NOW - DAY},
    {"deliver_by": NOW + 2 * DAY},
    {"timeout": timedelta(days=1)},
    {"reason": "because not"},
    {"repeatable": True},
    {"rollout": Rollout((EVERYTHING,))},
    {"windows": ("22:00-04:00",)},
    {"catch_up": True},
    {"retry_of": OrderId("or_" + "1" * 26)},
    {"policy_version": 1},
    {"revocations_version": 1},
    {"standing": Standing("hourly", to_ms(NOW + DAY))},
]


def test_every_field_of_an_order_has_an_edit_here() -> None:
    assert {name for edit in EDITS for name in edit} == set(Order.__dataclass_fields__)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_order_does_not_fit_its_signature(edit: dict[str, Any]) -> None:
    forged = Envelope(encode_order(replace(ORDER, **edit)), signed().signatures)
    assert code_of(lambda: accept(forged)) is Code.BAD_SIGNATURE


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def signature(order: bytes) -> bytes:
    return signed().signatures[0].signature


SIGNATURES: dict[str, Callable[[bytes], tuple[Signature, ...]]] = {
    "none": lambda order: (),
    "empty": lambda order: (Signature(der(ANN), b""),),
    "zeros": lambda order: (Signature(der(ANN), bytes(71)),),
    "cut": lambda order: (Signature(der(ANN), signature(order)[:-1]),),
    "longer": lambda order: (Signature(der(ANN), signature(order) + b"\0"),),
    "over the order itself": lambda order: (
        Signature(der(ANN), KEY.sign(order, ec.ECDSA(SHA256()))),
    ),
    "under another word": lambda order: (
        Signature(
            der(ANN),
            KEY.sign(signed_bytes(order).replace(b"order", b"other"), ec.ECDSA(SHA256())),
        ),
    ),
    "by another key": lambda order: sign(order, key=new_key(), certificate=ANN).signatures,
    "no certificate": lambda order: (Signature(b"", signature(order)),),
    "garbage for a certificate": lambda order: (Signature(b"\x30\x03abc", signature(order)),),
    "the issuing authority's operator": lambda order: (
        sign(order, key=KEY, certificate=operator(ISSUING)).signatures
    ),
    "another root's operator": lambda order: (
        sign(order, key=KEY, certificate=operator(authority())).signatures
    ),
    "a machine": lambda order: sign(order, key=KEY, certificate=machine_certificate()).signatures,
    "the issuing authority": lambda order: (
        sign(order, key=ISSUING.key, certificate=ISSUING.certificate).signatures
    ),
    "the root": lambda order: sign(order, key=ROOT.key, certificate=ROOT.certificate).signatures,
    "a good one and a bad one": lambda order: (
        *signed().signatures,
        Signature(der(ANN), bytes(71)),
    ),
    "a bad one and a good one": lambda order: (
        Signature(der(ANN), bytes(71)),
        *signed().signatures,
    ),
    "a good one and a forged operator's": lambda order: (
        *signed().signatures,
        *sign(order, key=KEY, certificate=operator(ISSUING)).signatures,
    ),
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_only_a_signature_by_an_operator_of_the_root_counts(kind: str) -> None:
    order = encode_order(ORDER)
    envelope = Envelope(order, SIGNATURES[kind](order))
    assert code_of(lambda: accept(envelope)) is Code.BAD_SIGNATURE


def test_a_machine_of_another_installation_does_not_obey() -> None:
    other = authority().certificate
    assert code_of(lambda: accept(signed(), root=other)) is Code.BAD_SIGNATURE


def test_an_operator_whose_certificate_ended_signs_nothing() -> None:
    expired = operator(now=NOW - 400 * DAY)
    early = operator(now=NOW + DAY)
    assert code_of(lambda: accept(signed(ORDER, expired))) is Code.EXPIRED
    assert code_of(lambda: accept(signed(ORDER, early))) is Code.EXPIRED


def test_an_order_for_another_tenant_or_machine_is_rejected() -> None:
    assert code_of(lambda: accept(signed(), tenant=OTHER_TENANT)) is Code.WRONG_TENANT
    assert code_of(lambda: accept(signed(), machine=OTHER_MACHINE)) is Code.WRONG_TARGET
    nowhere = signed(replace(ORDER, machines=()))
    assert code_of(lambda: accept(nowhere)) is Code.WRONG_TARGET


def test_an_operator_has_no_say_beyond_the_own_tenants() -> None:
    own = operator(tenants=frozenset({TENANT, OTHER_TENANT}))
    foreign = operator(tenants=frozenset({OTHER_TENANT}))
    assert accept(signed(ORDER, own))[0] == ORDER
    assert code_of(lambda: accept(signed(ORDER, foreign))) is Code.WRONG_TENANT


ONE_OF_EACH: dict[str, Action] = {
    name: (
        RunProgram(("true",))
        if kind is RunProgram
        else ApplyUpdates(bytes(32))
        if kind is ApplyUpdates
        else SetBackup((b"/etc",))
        if kind is SetBackup
        else ChangeVaultSecret({})
        if kind is ChangeVaultSecret
        else CompareLive("rp_1", b"/etc", (), b"", bytes(32))
        if kind is CompareLive
        else RunScript("sh", b"true")
        if kind is RunScript
        else ControlService("cron", "stop")
        if kind is ControlService
        else ControlPower("reboot")
        if kind is ControlPower
        else KillProcess(2, "1-1")
        if kind is KillProcess
        else CancelOrder("or_00000000000000000000000001")
        if kind is CancelOrder
        else Rehome("a:1", "a:2")
        if kind is Rehome
        else RevokeStanding("or_00000000000000000000000001")
        if kind is RevokeStanding
        else kind("rp_1", b"/etc", (), b"/tmp/back")
        if issubclass(kind, RestoreFiles)
        else kind()  # type: ignore[call-arg]
    )
    for name, kind in ACTIONS.items()
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_role_reaches_to_its_actions_and_no_further(role: Role, name: str) -> None:
    envelope = signed(replace(ORDER, action=ONE_OF_EACH[name]), operator(role=role))
    may = {Role.ADMIN, Role.TECHNICIAN}
    if CLASSES[name] is ActionClass.OBSERVE:
        may |= {Role.HELPDESK}
    if name == "change_vault_secret":
        may = {Role.ADMIN}
    if role in may:
        assert accept(envelope)[0].action == ONE_OF_EACH[name]
    else:
        assert code_of(lambda: accept(envelope)) is Code.DENIED


def test_every_action_has_a_class_and_with_programs_it_is_dangerous() -> None:
    assert set(CLASSES) == set(ACTIONS)
    commands = Commands(before=("true",))
    for kind in (SetBackup, RunBackup):
        assert class_of(kind((b"/etc",))) is ActionClass.ROUTINE
        assert class_of(kind((b"/etc",), commands=commands)) is ActionClass.DANGEROUS
    assert class_of(ReadLog(file="/var/log/web.log")) is ActionClass.ROUTINE
    assert class_of(ReadLog(file="/etc/shadow")) is ActionClass.DANGEROUS


@pytest.mark.parametrize(
    ("now", "latest_seen", "expected"),
    [
        (NOW + timedelta(hours=1), NOW, None),
        (NOW + timedelta(hours=1, seconds=1), NOW, Code.EXPIRED),
        (NOW + 10 * DAY, NOW, Code.EXPIRED),
        # A clock set back does not bring an expired order to life.
        (NOW, NOW + timedelta(hours=2), Code.EXPIRED),
        (NOW - timedelta(minutes=4), NOW - DAY, None),
        (NOW - timedelta(minutes=6), NOW - DAY, Code.CLOCK_SKEW),
        (NOW - timedelta(minutes=6), NOW, Code.CLOCK_SKEW),
    ],
)
def test_an_order_is_accepted_in_its_time_alone(
    now: datetime, latest_seen: datetime, expected: Code | None
) -> None:
    envelope = signed(ORDER, operator(now=NOW - DAY))
    if expected is None:
        assert accept(envelope, now=now, latest_seen=latest_seen)[0] == ORDER
    else:
        assert code_of(lambda: accept(envelope, now=now, latest_seen=latest_seen)) is expected


def test_who_is_refused_for_a_clock_that_was_ahead_learns_that() -> None:
    """The order is not late by any clock that people look at."""
    with pytest.raises(SteadError, match="once said") as caught:
        accept(signed(), latest_seen=ORDER.deliver_by + DAY)
    assert caught.value.code is Code.EXPIRED
    with pytest.raises(SteadError) as caught:
        accept(signed(), now=ORDER.deliver_by + timedelta(seconds=1))
    assert "once said" not in str(caught.value)


def test_an_order_for_later_waits() -> None:
    later = replace(ORDER, not_before=NOW + timedelta(minutes=30))
    assert code_of(lambda: accept(signed(later))) is Code.CLOCK_SKEW
    assert accept(signed(later), now=NOW + timedelta(minutes=30))[0] == later


@pytest.mark.parametrize(
    "edit",
    [
        {"timeout": timedelta()},
        {"issued_at": NOW + timedelta(minutes=2), "deliver_by": NOW + timedelta(minutes=1)},
        {"deliver_by": NOW + LONGEST_DELIVERY + timedelta(seconds=1)},
        {"deliver_by": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
    ],
)
def test_times_that_make_no_sense_are_rejected(edit: dict[str, Any]) -> None:
    assert code_of(lambda: accept(signed(replace(ORDER, **edit)))) is Code.INVALID


def resigned(order: bytes) -> Envelope:
    return sign(order, key=KEY, certificate=ANN)


def test_an_order_with_a_field_that_is_not_known_is_not_obeyed() -> None:
    unknown = b"\xf8\x07\x01"  # field 127, a number
    whole = encode_order(ORDER)
    assert code_of(lambda: accept(resigned(whole + unknown))) is Code.UNKNOWN_FIELD
    message = order_to_pb(ORDER)
    message.collect_inventory.MergeFromString(unknown)
    assert code_of(lambda: accept(resigned(message.SerializeToString()))) is Code.UNKNOWN_FIELD
    travelled = encode_envelope(signed()) + unknown
    assert code_of(lambda: accept(travelled)) is Code.UNKNOWN_FIELD
    envelope = order_pb2.Envelope.FromString(encode_envelope(signed()))
    envelope.signatures[0].MergeFromString(unknown)
    assert code_of(lambda: accept(envelope.SerializeToString())) is Code.UNKNOWN_FIELD


def test_an_action_that_is_not_known_is_not_obeyed() -> None:
    message = order_to_pb(ORDER)
    message.ClearField("collect_inventory")
    future = message.SerializeToString() + b"\xfa\x07\x00"  # field 127, a message
    assert code_of(lambda: accept(resigned(future))) is Code.UNKNOWN_ACTION
    assert code_of(lambda: accept(resigned(b""))) is Code.UNKNOWN_ACTION


def test_an_order_with_two_actions_means_the_last_one_and_nothing_of_the_first() -> None:
    both = (
        encode_order(ORDER)
        + order_pb2.Order(scan_updates=order_pb2.ScanUpdates(refresh=True)).SerializeToString()
    )
    order, _ = accept(resigned(both))
    assert order.action == ACTIONS["scan_updates"](refresh=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "edit",
    [
        {"order_id": "or_short"},
        {"order_id": ""},
        {"tenant_id": "mc_" + "0" * 26},
        {"machine_ids": ["../" + "0" * 26]},
        {"issued_at_ms": -1},
        {"not_before_ms": -(2**63)},
        {"deliver_by_ms": 2**63 - 1},
    ],
)
def test_a_value_out_of_range_is_refused_though_it_was_signed(edit: dict[str, Any]) -> None:
    message = order_to_pb(ORDER)
    for name, value in edit.items():
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    assert code_of(lambda: accept(resigned(message.SerializeToString()))) is Code.INVALID


def test_an_order_has_an_end_to_its_length() -> None:
    with pytest.raises(InvalidError):
        decode_order(bytes(MAX_ORDER_BYTES + 1))


def test_every_signature_is_looked_at_and_not_the_first_two_alone() -> None:
    order = encode_order(ORDER)
    keys = [new_key() for _ in range(3)]
    good = [sign(order, key=key, certificate=operator(key=key)).signatures[0] for key in keys]
    assert len(signers_of(Envelope(order, tuple(good)), root=ROOT.certificate, now=NOW)) == 3
    wrong = new_key().sign(signed_bytes(order), ec.ECDSA(SHA256()))
    for place in range(3):
        some = [*good]
        some[place] = replace(some[place], signature=wrong)
        with pytest.raises(SteadError) as refused:
            signers_of(Envelope(order, tuple(some)), root=ROOT.certificate, now=NOW)
        assert refused.value.code is Code.BAD_SIGNATURE
