"""What a machine claims of itself is summed up without trust in its shape."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.summary import parse_system, parse_updates

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["facts", "os", "name", "updates", "security_count"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_summed_up_or_counts_as_not_known(value: object) -> None:
    body = msgspec.json.encode(value)
    assert isinstance(parse_system(body), str)
    counts = parse_updates(body)
    assert counts is None or all(isinstance(count, int) for count in counts)


def test_the_counts_are_those_of_the_section() -> None:
    facts = {"updates": [{"name": "a"}, {"name": "b"}], "security_count": 1, "held": []}
    assert parse_updates(msgspec.json.encode({"section": "updates", "facts": facts})) == (2, 1)


@pytest.mark.parametrize("count", [-1, 3, 2**40])
def test_counts_that_cannot_be_are_not_known(count: int) -> None:
    facts = {"updates": [1, 2], "security_count": count}
    assert parse_updates(msgspec.json.encode({"facts": facts})) is None
