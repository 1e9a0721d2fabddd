"""What lets a connection act whose own key is for connecting alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificates import Issuer
from controller.authority.keys import new_key
from controller.rpc.authorisation import TABLE, Who, check_allowed, only_looks
from protocol.codec import decode_unlock, encode_unlock, to_ms
from protocol.errors import Code, DeniedError, SteadError
from protocol.identity import (
    IdentityError,
    OperatorIdentity,
    Role,
    believe,
    key_hash,
    parse_identity,
)
from protocol.unlock import GOOD_FOR, Unlock, check_unlock, unlock_bytes
from tests.unit.protocol.signed import ANN, ISSUING, KEY, NOW, ROOT, TENANT, authority, operator

CALLER = OperatorIdentity("ann", Role.TECHNICIAN, None, connects_only=True)
CONNECTION = key_hash(new_key().public_key())
UNTIL = to_ms(NOW + GOOD_FOR)


def said(
    certificate: bytes = ANN.public_bytes(Encoding.DER),
    until_ms: int = UNTIL,
    key: ec.EllipticCurvePrivateKey = KEY,
    connection: bytes = CONNECTION,
) -> Unlock:
    signature = key.sign(unlock_bytes(connection, until_ms), ec.ECDSA(SHA256()))
    return Unlock(certificate, until_ms, signature)


def check(unlock: Unlock, caller: OperatorIdentity = CALLER) -> None:
    travelled = decode_unlock(encode_unlock(unlock))
    check_unlock(travelled, caller, CONNECTION, root=ROOT.certificate, now=NOW)


def code_of(unlock: Unlock, caller: OperatorIdentity = CALLER) -> Code:
    with pytest.raises(SteadError) as caught:
        check(unlock, caller)
    return caught.value.code


def test_the_operator_s_own_key_unlocks_its_connection() -> None:
    check(said())


def der(issuer: Issuer = ROOT, **changes: object) -> bytes:
    return operator(issuer, **changes).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def test_nothing_else_does() -> None:
    other = new_key()
    assert code_of(said(key=other)) is Code.BAD_SIGNATURE
    assert code_of(said(connection=key_hash(other.public_key()))) is Code.BAD_SIGNATURE
    assert code_of(replace(said(), until_ms=UNTIL + 1)) is Code.BAD_SIGNATURE
    assert code_of(said(certificate=b"")) is Code.UNAUTHENTICATED
    assert code_of(said(der(role=Role.ADMIN))) is Code.UNAUTHENTICATED
    assert code_of(said(der(tenants=frozenset({TENANT})))) is Code.UNAUTHENTICATED
    assert code_of(said(der(ISSUING))) is Code.UNAUTHENTICATED
    assert code_of(said(der(authority()))) is Code.UNAUTHENTICATED
    bob = replace(CALLER, name="bob")
    assert code_of(said(), bob) is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "until", [NOW, NOW - timedelta(seconds=1), NOW + timedelta(minutes=16), NOW + timedelta(days=9)]
)
def test_it_is_good_for_some_minutes(until: object) -> None:
    assert code_of(said(until_ms=to_ms(until))) is Code.EXPIRED  # type: ignore[arg-type]


def test_a_certificate_for_connecting_alone_unlocks_nothing_itself() -> None:
    from controller.authority.certificates import certify_operator

    leaf = certify_operator(ROOT, KEY.public_key(), CALLER, serial=9, now=NOW)
    assert code_of(said(leaf.public_bytes(Encoding.DER))) is Code.UNAUTHENTICATED
    with pytest.raises(IdentityError, match="connecting alone"):
        believe(leaf, root=ROOT.certificate, issuing=(), now=NOW)
    believed = believe(leaf, root=ROOT.certificate, issuing=(), now=NOW, connecting=True)
    assert believed == CALLER
    assert parse_identity(CALLER.uri()) == CALLER
    assert parse_identity(CALLER.whole().uri()) == CALLER.whole()


@pytest.mark.parametrize("method", sorted(TABLE))
def test_without_a_word_of_that_key_a_connection_looks_and_hands_in_what_is_signed(
    method: str,
) -> None:
    for role in Role:
        caller = OperatorIdentity("ann", role, None, connects_only=True)
        if Who(role.value) not in TABLE[method]:
            with pytest.raises(DeniedError):
                check_allowed(method, caller)
            continue
        check_allowed(method, caller)
        looks = Who.AUDITOR in TABLE[method] or method.endswith(("/SubmitOrder", "/ApproveJob"))
        assert only_looks(method) is looks
        if looks:
            check_allowed(method, caller, looking=True)
        else:
            with pytest.raises(DeniedError, match="ssh-agent"):
                check_allowed(method, caller, looking=True)
