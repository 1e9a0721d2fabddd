"""What a signed checkpoint proves, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificates import certify_operator
from controller.authority.keys import new_key, new_serial
from protocol.checkpoint import (
    Checkpoint,
    Found,
    decode_checkpoint,
    decode_signed,
    encode_checkpoint,
    encode_signed,
    judge,
    open_checkpoint,
    sign_checkpoint,
)
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.merkle import prove_consistency
from tests.unit.audit.signing import AT, OTHER, TENANT, Signers, checkpoint, entry, node_of

SIGNERS = Signers.new()
LOG = [entry(number) for number in range(9)]


def test_the_bytes_are_those_that_were_published() -> None:
    made = encode_checkpoint(Checkpoint("tn_1", 3, bytes(32), b"\1" * 32, AT))
    assert made.hex() == (
        "9601a4746e5f3103c420" + "00" * 32 + "c420" + "01" * 32 + "cf000650c05200f000"
    )


def test_what_was_signed_opens_and_nothing_else_does() -> None:
    made = checkpoint(LOG)
    good = SIGNERS.sign(made)
    assert open_checkpoint(good, SIGNERS.certificate) == made
    parts = decode_signed(good)
    another = encode_checkpoint(replace(made, size=8))
    for bad in (
        replace(parts, body=another),
        replace(parts, signature=parts.signature[:-1]),
        replace(parts, certificate=SIGNERS.certificate.public_bytes(Encoding.DER)),
        replace(parts, certificate=b"no certificate"),
    ):
        with pytest.raises(SteadError) as caught:
            open_checkpoint(encode_signed(bad), SIGNERS.certificate)
        assert caught.value.code is Code.BAD_SIGNATURE


@pytest.mark.parametrize("kind", ["other key", "other root", "operator", "after its time"])
def test_a_checkpoint_of_another_signer_is_refused(kind: str) -> None:
    made, root = checkpoint(LOG), SIGNERS.certificate
    signed = SIGNERS.sign(made)
    if kind == "other key":
        signed = SIGNERS.sign(made, new_key())
    elif kind == "other root":
        signed = Signers.new().sign(made)
    elif kind == "after its time":
        signed = SIGNERS.sign(replace(made, at=AT + timedelta(days=800)))
    else:
        key = new_key()
        ann = OperatorIdentity("ann", Role.ADMIN, None)
        leaf = certify_operator(SIGNERS.root, key.public_key(), ann, serial=new_serial(), now=AT)
        der = leaf.public_bytes(Encoding.DER)
        signed = encode_signed(sign_checkpoint(made, key, der))
    with pytest.raises(SteadError) as caught:
        open_checkpoint(signed, root)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_every_cut_and_every_flipped_byte_is_refused() -> None:
    good = SIGNERS.sign(checkpoint(LOG))
    for cut in range(len(good)):
        with pytest.raises(SteadError):
            open_checkpoint(good[:cut], SIGNERS.certificate)
    for place in range(0, len(good), 7):
        bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        with pytest.raises(SteadError):
            open_checkpoint(bad, SIGNERS.certificate)


def test_a_checkpoint_is_written_in_one_way_only() -> None:
    body = encode_checkpoint(checkpoint(LOG))
    for bad in (
        body + b"\0",
        body.replace(b"\x09\xc4", b"\xcc\x09\xc4"),
        msgspec.msgpack.encode((2, TENANT, 1, bytes(32), bytes(32), 0)),
        msgspec.msgpack.encode((1, TENANT, 1, bytes(31), bytes(32), 0)),
        msgspec.msgpack.encode((1, TENANT, -1, bytes(32), bytes(32), 0)),
        msgspec.msgpack.encode((1, TENANT, 1, bytes(32), bytes(32), -1)),
        body.replace(TENANT.encode(), b"\xff" * len(TENANT)),
    ):
        assert bad != body
        with pytest.raises(SteadError):
            decode_checkpoint(bad)


def test_a_log_that_was_added_to_is_newer_and_every_other_one_is_found() -> None:
    kept = checkpoint(LOG[:5])
    proof = prove_consistency(5, 9, node_of(LOG))
    forked = [*LOG[:4], entry(99), *LOG[5:]]
    assert judge(kept, checkpoint(LOG), proof) is Found.NEWER
    assert judge(kept, checkpoint(LOG[:5]), ()) is Found.SAME
    assert judge(kept, checkpoint(LOG), ()) is Found.FORKED
    assert judge(kept, checkpoint(forked), prove_consistency(5, 9, node_of(forked))) is Found.FORKED
    assert judge(kept, checkpoint([*LOG[:4], entry(99)]), ()) is Found.FORKED
    assert judge(kept, checkpoint(LOG[:4]), ()) is Found.SHRUNK
    with pytest.raises(ValueError, match="two logs"):
        judge(kept, checkpoint(LOG, OTHER), proof)
