"""Whatever a machine calls itself, it gets a name that people can type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.names import RESERVED, check_machine_name, free_name, name_from
from protocol.errors import InvalidError


@given(st.text(max_size=300))
def test_every_host_name_becomes_a_name(hostname: str) -> None:
    name = name_from(hostname)
    assert check_machine_name(name) == name


@given(st.text(max_size=80), st.sets(st.integers(1, 30)))
def test_a_name_that_is_taken_gets_a_number(hostname: str, numbers: set[int]) -> None:
    wanted = name_from(hostname)
    taken = {wanted if number == 1 else f"{wanted}-{number}" for number in numbers}
    name = free_name(wanted, taken.__contains__)
    assert name not in taken
    assert check_machine_name(name) == name


@pytest.mark.parametrize("name", [*sorted(RESERVED), "", "A", "a/b", "-a", "a" * 64])
def test_a_word_of_selectors_is_no_name(name: str) -> None:
    with pytest.raises(InvalidError):
        check_machine_name(name)
