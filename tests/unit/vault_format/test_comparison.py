"""An answer to a comparison is whole, in order, and read by nobody else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.errors import InvalidError
from protocol.vault.comparison import (
    Difference,
    Page,
    Terms,
    entry_of,
    open_pages,
    open_terms,
    seal_page,
    seal_terms,
    side_of,
)
from protocol.vault.entry import Entry, Owner
from protocol.vault.seal import SealedError

KEY, OTHER = X25519PrivateKey.generate(), X25519PrivateKey.generate()
TERMS = Terms((b"/etc",), KEY.public_key().public_bytes_raw())
ENTRY = Entry(b"hosts", 0o100644, Owner(1, 2, "me", "us"), -5, 7)
ONE = Difference(b"etc", b"hosts", ("content",), side_of(ENTRY), None)
NAMES = {"machine": "mc_1", "point": "rp_1"}


def answer(count: int) -> list[bytes]:
    return [
        seal_page(Page((ONE,), ((b"x", "why"),), number == count - 1), number, TERMS, **NAMES)
        for number in range(count)
    ]


def test_an_answer_comes_back_as_it_was_given() -> None:
    pages = list(open_pages(KEY, answer(3), **NAMES))
    assert [page.differences for page in pages] == [(ONE,)] * 3
    assert entry_of(ONE.name, ONE.old) == ENTRY
    sealed = seal_terms(TERMS, KEY.public_key(), tenant="tn_1", **NAMES)
    assert open_terms(KEY, sealed, tenant="tn_1", **NAMES) == TERMS


def test_what_a_carrier_can_do_to_an_answer_is_seen() -> None:
    first, second, last = answer(3)
    for pages in ([], [first, second], [first], [first, last], [last], [second, first, last]):
        with pytest.raises((InvalidError, SealedError)):
            list(open_pages(KEY, pages, **NAMES))
    with pytest.raises(SealedError):
        list(open_pages(OTHER, [first, second, last], **NAMES))
    with pytest.raises(SealedError):
        list(open_pages(KEY, [first, second, last], machine="mc_1", point="rp_2"))
    with pytest.raises(SealedError):
        open_terms(
            KEY,
            seal_terms(TERMS, KEY.public_key(), tenant="tn_1", **NAMES),
            tenant="tn_2",
            **NAMES,
        )
