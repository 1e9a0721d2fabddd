"""The list of revoked operators: who can make one, which is taken, and whom it hits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from controller.authority.keys import new_key
from protocol.codec import encode_revocations, encode_signed_revocations, read_revocations
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role, key_hash
from protocol.order import Signer
from protocol.revocation import (
    NO_REVOCATIONS,
    DistrustedAuthority,
    Revocations,
    RevokedOperator,
    SignedRevocations,
    check_current,
    check_not_revoked,
    newer,
    plan_distrust,
    plan_revocation,
    sign_revocations,
)
from tests.unit.protocol.signed import KEY, NOW, ROOT, authority

DAY = timedelta(days=1)
ANNS_KEY = key_hash(KEY.public_key())
GONE = RevokedOperator("ann", ANNS_KEY, NOW)
LIST = Revocations(3, NOW, (GONE,))
STOLEN = DistrustedAuthority(bytes(range(32)), "00ff00ff00ff", NOW)
FULL = Revocations(3, NOW, (GONE,), (STOLEN,))
ANN = Signer(OperatorIdentity("ann", Role.ADMIN, None), ANNS_KEY)
EVE = Signer(OperatorIdentity("eve", Role.ADMIN, None), bytes(32))


def travelled(revocations: Revocations = LIST, key: object = ROOT.key) -> bytes:
    signed = sign_revocations(encode_revocations(revocations), key)  # type: ignore[arg-type]
    return encode_signed_revocations(signed)


def code_of(data: bytes, root: x509.Certificate = ROOT.certificate) -> Code:
    with pytest.raises(SteadError) as caught:
        read_revocations(data, root)
    return caught.value.code


def test_what_the_root_signed_is_read_as_it_was() -> None:
    for listed in (LIST, FULL):
        assert read_revocations(travelled(listed), ROOT.certificate) == listed


def test_only_the_root_of_this_installation_makes_a_list() -> None:
    assert code_of(travelled(key=new_key())) is Code.BAD_SIGNATURE
    other = authority()
    assert code_of(travelled(key=other.key)) is Code.BAD_SIGNATURE
    assert code_of(travelled(), other.certificate) is Code.BAD_SIGNATURE
    edited = encode_revocations(replace(LIST, version=9))
    signature = sign_revocations(encode_revocations(LIST), ROOT.key).signature
    forged = encode_signed_revocations(SignedRevocations(edited, signature))
    assert code_of(forged) is Code.BAD_SIGNATURE


def test_what_was_ever_distrusted_stays_so_whatever_is_added() -> None:
    other = DistrustedAuthority(bytes(32), "another", NOW)
    later = plan_distrust(FULL, [other, replace(STOLEN, name="renamed")], now=NOW + DAY)
    assert (later.version, later.operators) == (4, (GONE,))
    assert later.authorities == (STOLEN, other)
    last = plan_revocation(later, RevokedOperator("eve", b"", NOW), now=NOW + DAY)
    assert last.authorities == later.authorities
    assert last.distrusted == {STOLEN.key_hash, other.key_hash}


def test_no_bit_of_a_list_can_be_changed() -> None:
    whole = travelled(FULL)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(SteadError):
            read_revocations(bytes(changed), ROOT.certificate)
    for end in range(1, len(whole)):
        with pytest.raises(SteadError):
            read_revocations(whole[:end], ROOT.certificate)


def test_a_list_that_makes_no_sense_is_refused_whoever_signed_it() -> None:
    assert code_of(travelled(replace(LIST, version=0))) is Code.INVALID
    short = replace(LIST, operators=(replace(GONE, key_hash=b"x"),))
    assert code_of(travelled(short)) is Code.INVALID
    for key in (b"", bytes(31)):
        short = replace(LIST, authorities=(replace(STOLEN, key_hash=key),))
        assert code_of(travelled(short)) is Code.INVALID
    assert code_of(travelled(replace(LIST, operators=(replace(GONE, name="A B"),)))) is Code.INVALID
    assert code_of(bytes(512 * 1024 + 1)) is Code.INVALID


def test_an_old_list_never_follows_a_newer_one() -> None:
    assert newer(NO_REVOCATIONS, LIST)
    assert newer(LIST, replace(LIST, version=4))
    assert not newer(LIST, LIST)
    for other in (replace(LIST, version=2), replace(LIST, operators=())):
        with pytest.raises(SteadError) as caught:
            newer(LIST, other)
        assert caught.value.code is Code.REPLAYED


def test_the_next_list_keeps_everybody_and_the_earlier_time() -> None:
    eve = RevokedOperator("eve", b"", NOW)
    both = plan_revocation(LIST, eve, now=NOW + DAY)
    assert (both.version, both.issued_at) == (4, NOW + DAY)
    assert both.operators == (GONE, eve)
    sooner = plan_revocation(both, replace(GONE, revoked_at=NOW - DAY), now=NOW)
    assert sooner.operators == (replace(GONE, revoked_at=NOW - DAY), eve)
    later = plan_revocation(both, replace(GONE, key_hash=b"", revoked_at=NOW + DAY), now=NOW)
    assert later.operators == (GONE, eve)
    # The name's other key is revoked besides.
    another = plan_revocation(both, replace(GONE, key_hash=bytes(32)), now=NOW)
    assert {one.key_hash for one in another.operators if one.name == "ann"} == {ANNS_KEY, bytes(32)}


@pytest.mark.parametrize(
    "signer",
    [
        ANN,
        replace(ANN, key=bytes(32)),
        replace(ANN, identity=OperatorIdentity("bob", Role.ADMIN, None)),
    ],
    ids=["both", "the name with another key", "the key under another name"],
)
def test_a_revoked_signer_is_refused_by_name_and_by_key(signer: Signer) -> None:
    with pytest.raises(SteadError) as caught:
        check_not_revoked(LIST, signer)
    assert caught.value.code is Code.REVOKED


def test_others_are_not_hit() -> None:
    check_not_revoked(LIST, EVE)
    check_not_revoked(Revocations(1, NOW, (RevokedOperator("ann", b"", NOW),)), EVE)
    check_not_revoked(NO_REVOCATIONS, ANN)


def test_only_what_was_taken_in_well_before_goes_on() -> None:
    check_not_revoked(LIST, ANN, taken_in_at=NOW - DAY)
    for at in (NOW - timedelta(minutes=5), NOW, NOW + DAY):
        with pytest.raises(SteadError):
            check_not_revoked(LIST, ANN, taken_in_at=at)


def test_an_order_whose_signer_knew_more_is_refused() -> None:
    check_current(LIST, 0)
    check_current(LIST, 3)
    with pytest.raises(SteadError) as caught:
        check_current(LIST, 4)
    assert caught.value.code is Code.STALE_REVOCATIONS


def test_of_two_revocations_of_one_operator_the_earlier_counts() -> None:
    """By name at first and by key a day later: what was taken in between does not go on."""
    later = replace(GONE, key_hash=bytes(32), revoked_at=GONE.revoked_at + DAY)
    both = replace(LIST, operators=(GONE, later))
    for operators in (both.operators, both.operators[::-1]):
        some = replace(both, operators=operators)
        check_not_revoked(some, ANN, taken_in_at=GONE.revoked_at - DAY)
        with pytest.raises(SteadError):
            check_not_revoked(some, ANN, taken_in_at=GONE.revoked_at + DAY / 2)
