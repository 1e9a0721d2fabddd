"""The keys that a tenant had, and how the newest leads to all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidError, NotFoundError
from protocol.vault.epochs import (
    LINK_BYTES,
    TenantKeys,
    decode_tenant_keys,
    encode_tenant_keys,
    link,
    name_of,
    open_link,
    with_links,
)
from protocol.vault.keys import TenantKey, encode_tenant_key
from protocol.vault.point import seal_contents
from tests.unit.vault_format import golden
from tests.unit.vault_format.points import MACHINE, POINT, TENANT, contents, restore_point

FIRST, SECOND, THIRD, OTHER = (TenantKey(bytes([n]) * 32) for n in range(1, 5))
LINKS = [link(THIRD, SECOND), link(SECOND, FIRST)]


def test_the_newest_key_leads_to_all_before_it() -> None:
    assert with_links(TenantKeys((THIRD,)), reversed(LINKS)).keys == (THIRD, SECOND, FIRST)
    assert with_links(TenantKeys((SECOND,)), LINKS).keys == (SECOND, FIRST)
    assert with_links(TenantKeys((OTHER,)), LINKS).keys == (OTHER,)


def test_an_old_key_leads_to_no_newer_one() -> None:
    for older in (FIRST, OTHER):
        with pytest.raises(InvalidError):
            open_link(older, LINKS[1])


@given(st.integers(0, LINK_BYTES - 1), st.integers(1, 255))
def test_a_link_with_any_byte_changed_does_not_open(place: int, change: int) -> None:
    wrong = bytearray(LINKS[0])
    wrong[place] ^= change
    with pytest.raises(InvalidError):
        open_link(THIRD, bytes(wrong))
    assert with_links(TenantKeys((THIRD,)), [bytes(wrong)]).keys == (THIRD,)


def test_links_in_a_circle_come_to_an_end() -> None:
    circle = [link(THIRD, SECOND), link(SECOND, THIRD)]
    assert with_links(TenantKeys((THIRD,)), circle).keys == (THIRD, SECOND)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5, unique=True))
def test_key_files_come_back(seeds: list[bytes]) -> None:
    keys = TenantKeys(tuple(map(TenantKey, seeds)))
    assert decode_tenant_keys(encode_tenant_keys(keys)) == keys


def test_a_key_file_of_one_key_is_what_it_always_was() -> None:
    assert encode_tenant_keys(TenantKeys((FIRST,))) == encode_tenant_key(FIRST)


@pytest.mark.parametrize("data", [b"", encode_tenant_key(FIRST)[:-1], encode_tenant_key(FIRST) * 2])
def test_a_key_file_that_is_cut_or_repeats_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        decode_tenant_keys(data)


def test_a_point_is_opened_with_the_key_that_it_was_made_under() -> None:
    root, _ = golden.build(golden.every_kind())
    sealed = seal_contents(
        contents(root),
        FIRST.secret.recovery_public,
        kind="tenant",
        tenant=TENANT,
        machine=MACHINE,
        point=POINT,
    )
    point = restore_point(root, sealed)
    assert TenantKeys((SECOND, FIRST)).of_point(point) == FIRST
    with pytest.raises(NotFoundError, match="key ls"):
        TenantKeys((SECOND,)).of_point(point)


def test_a_name_tells_no_secret() -> None:
    assert name_of(FIRST) != name_of(SECOND)
    assert FIRST.seed not in LINKS[1]
    assert repr(TenantKeys((FIRST,))).count("seed") == 0
