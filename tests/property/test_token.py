"""Laws of enrollment tokens."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.ids import TenantId, TokenId, make_id
from protocol.token import (
    CHECK_BYTES,
    PREFIX,
    SECRET_BYTES,
    Token,
    TokenError,
    decode_token,
    encode_token,
    open_bundle,
    seal_bundle,
)

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
IDS = st.builds(
    lambda at, random: TokenId(make_id("tk", at_ms=at, random=random)),
    st.integers(0, 2**48 - 1),
    st.binary(min_size=10, max_size=10),
)
TENANTS = IDS.map(lambda name: TenantId(f"tn{name[2:]}"))
HOSTS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,40}:[1-9][0-9]{0,3}", fullmatch=True)
TOKENS = st.builds(Token, IDS, SECRETS, SECRETS, st.binary(min_size=32, max_size=32), HOSTS)


def coded(body: bytes) -> str:
    """A line whose check is right, whatever it says."""
    whole = body + hashlib.sha256(body).digest()[:CHECK_BYTES]
    return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def met(text: str) -> Token | None:
    with suppress(TokenError):
        return decode_token(text)
    return None


@given(TOKENS, st.text(alphabet=" \t\r\n", max_size=3), st.text(alphabet=" \t\r\n", max_size=3))
def test_a_token_is_read_back_whatever_white_space_surrounds_it(
    token: Token, before: str, after: str
) -> None:
    assert decode_token(before + encode_token(token) + after) == token


@given(st.text(max_size=200) | st.text(max_size=200).map(PREFIX.__add__))
@example(PREFIX)
@example(PREFIX + "=")
@example(PREFIX + "AAAA")
@example(PREFIX + "é")
def test_any_text_is_a_token_or_refused(text: str) -> None:
    met(text)


@given(TOKENS, st.data())
def test_a_mistyped_token_is_noticed(token: Token, data: st.DataObject) -> None:
    line = encode_token(token)
    place = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters(codec="ascii"))
    found = met(line[:place] + other + line[place + 1 :])
    # The last character has bits that mean nothing; another one may mean the same.
    assert found in (None, token)


@given(TOKENS, st.data())
def test_a_token_that_was_cut_is_refused(token: Token, data: st.DataObject) -> None:
    line = encode_token(token)
    assert met(line[: data.draw(st.integers(0, len(line) - 1))]) is None


VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=8,
)


@given(st.binary(max_size=120) | VALUES.map(msgspec.msgpack.encode))
@example(msgspec.msgpack.encode(["tk_" + "0" * 26, b"", b"", b"", ""]))
@example(b"\x91" * 5000)
def test_a_body_with_a_right_check_is_a_token_or_refused(body: bytes) -> None:
    found = met(coded(body))
    assert found is None or decode_token(encode_token(found)) == found


@pytest.mark.parametrize(
    "fields",
    [
        ["tk_" + "0" * 26, b"", bytes(16), bytes(32), "host:1"],
        ["tk_" + "0" * 26, bytes(16), bytes(15), bytes(32), "host:1"],
        ["tk_" + "0" * 26, bytes(16), bytes(16), bytes(31), "host:1"],
        ["mc_" + "0" * 26, bytes(16), bytes(16), bytes(32), "host:1"],
    ],
)
def test_secrets_and_pin_have_their_lengths(fields: list[object]) -> None:
    assert met(coded(msgspec.msgpack.encode(fields))) is None


@given(TOKENS)
def test_a_token_does_not_show_its_secrets(token: Token) -> None:
    assert repr(token) == f"Token({token.id})"


@given(IDS, IDS, TENANTS, TENANTS, SECRETS, SECRETS, st.binary(max_size=100))
def test_a_bundle_opens_with_its_own_token_for_its_own_tenant_alone(
    token: TokenId,
    other: TokenId,
    tenant: TenantId,
    stranger: TenantId,
    opening: bytes,
    wrong: bytes,
    plain: bytes,
) -> None:
    right = (opening, token, tenant)
    sealed = seal_bundle(*right, plain)
    assert open_bundle(*right, sealed) == plain
    for tried in ((wrong, token, tenant), (opening, other, tenant), (opening, token, stranger)):
        if tried != right:
            with pytest.raises(TokenError):
                open_bundle(*tried, sealed)


@given(IDS, TENANTS, SECRETS, st.binary(max_size=80))
def test_any_bytes_are_a_bundle_or_refused(
    token: TokenId, tenant: TenantId, opening: bytes, sealed: bytes
) -> None:
    with pytest.raises(TokenError):
        open_bundle(opening, token, tenant, sealed)
