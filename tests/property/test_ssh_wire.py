"""Laws of what is said to an ssh-agent: what was written is read, and nothing else is."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from controller.authority.keys import new_key
from controller.authority.ssh_wire import (
    KIND,
    MAX_MESSAGE_BYTES,
    HeldKey,
    ask_for_keys,
    ask_to_sign,
    blob_of,
    parse_keys,
    parse_length,
    parse_signature,
)
from protocol.errors import InvalidError

NUMBERS = st.integers(1, 2**256 - 1)
KEYS = [new_key().public_key() for _ in range(3)]


def string(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def number(value: int) -> bytes:
    """An `mpint`, written here once more: the fewest bytes that keep the sign."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def held(keys: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(string(blob) + string(comment) for blob, comment in keys)
    return bytes((12,)) + len(keys).to_bytes(4, "big") + body


def signed(r: int, s: int, kind: bytes = KIND) -> bytes:
    return bytes((14,)) + string(string(kind) + string(number(r) + number(s)))


@given(st.lists(st.tuples(st.binary(max_size=80), st.text(max_size=20)), max_size=8))
def test_the_keys_that_an_agent_names_are_read(keys: list[tuple[bytes, str]]) -> None:
    data = held([(blob, comment.encode()) for blob, comment in keys])
    assert parse_keys(data) == [HeldKey(blob, comment) for blob, comment in keys]


@given(NUMBERS, NUMBERS)
def test_a_signature_is_the_two_numbers_that_the_agent_named(r: int, s: int) -> None:
    assert decode_dss_signature(parse_signature(signed(r, s))) == (r, s)


@given(st.data())
def test_what_is_cut_or_has_more_is_no_answer(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from([held([(blob_of(KEYS[0]), b"a"), (b"x", b"")]), signed(5, 2**255)])
    )
    parse = parse_keys if whole[0] == 12 else parse_signature
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0"):
        with pytest.raises(InvalidError):
            parse(wrong)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    for parse in (parse_keys, parse_signature):
        for kind in (b"", b"\x05", b"\x0c", b"\x0e"):
            try:
                parse(kind + data)
            except InvalidError:
                continue


@pytest.mark.parametrize(
    "wrong",
    [
        signed(1, 1, kind=b"ssh-ed25519"),
        bytes((14,)) + string(string(KIND) + string(string(b"\xff") + number(1))),
        bytes((14,)) + string(string(KIND) + string(string(b"") + number(1))),
        bytes((14,)) + string(string(KIND) + string(string(bytes(40)) + number(1))),
        bytes((5,)),
    ],
)
def test_a_signature_that_makes_no_sense_is_refused(wrong: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_signature(wrong)


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_a_key_is_written_as_ssh_writes_it(key: ec.EllipticCurvePublicKey) -> None:
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert base64.b64decode(line.split()[1]) == blob_of(key)
    assert HeldKey(blob_of(key), "").public_key() == key


def test_requests_say_their_length() -> None:
    assert ask_for_keys() == b"\0\0\0\x01\x0b"
    asked = ask_to_sign(b"blob", b"data")
    assert parse_length(asked[:4]) == len(asked) - 4
    for wrong in (
        b"",
        b"\0\0\0\0",
        (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
    ):
        with pytest.raises(InvalidError):
            parse_length(wrong)
