from __future__ import annotations

import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inventory.section import (
    BODY_LIMIT_BYTES,
    STRING_LIMIT,
    Facts,
    Section,
    encode_facts,
    encode_unavailable,
    inert,
)
from agent.inventory.sources import Sources, decode
from protocol.errors import UnavailableError


class Shelf(Facts, frozen=True, kw_only=True):
    books: list[str]


def collect_nothing(sources: Sources) -> Facts:
    return Facts()


SHELF = Section("shelf", 3, collect_nothing)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()) | st.binary().map(decode),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


def strings_in(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in strings_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


@given(anything)
def test_no_string_of_a_machine_can_break_an_encoder_or_steer_a_terminal(value: object) -> None:
    for text in strings_in(inert(value)):
        text.encode("utf-8")
        assert len(text) <= STRING_LIMIT * len("\\u202e")
        assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
        assert not any(unicodedata.bidirectional(letter) in ("RLO", "LRO") for letter in text)


@given(anything)
def test_what_was_made_harmless_stays_as_it_is(value: object) -> None:
    once = inert(value)
    assert inert(once) == once


def test_harmless_text_is_not_touched() -> None:
    assert inert({"naïve": ["Grüße, 世界", 7, None]}) == {"naïve": ["Grüße, 世界", 7, None]}


def test_a_long_string_is_cut_and_shows_it() -> None:
    assert inert("x" * 5000) == "x" * (STRING_LIMIT - 1) + "…"


def test_a_body_says_what_it_is_of() -> None:
    body = encode_facts(SHELF, Shelf(books=["b\x1b"], gaps={"z": "1", "a": "2"}))
    assert body == (
        rb'{"section":"shelf","schema":3,"status":"ok","reason":null,'
        rb'"facts":{"books":["b\\x1b"],"gaps":{"a":"2","z":"1"}}}'
    )


def test_an_unavailable_section_says_why_and_has_no_facts() -> None:
    assert msgspec.json.decode(encode_unavailable(SHELF, "no \x07 shelf")) == {
        "section": "shelf",
        "schema": 3,
        "status": "unavailable",
        "reason": "no \\x07 shelf",
        "facts": None,
    }


def test_a_body_that_is_too_large_is_refused_instead_of_cut() -> None:
    with pytest.raises(UnavailableError, match="take more than"):
        encode_facts(SHELF, Shelf(books=["x" * 4000] * (BODY_LIMIT_BYTES // 4000 + 1)))
