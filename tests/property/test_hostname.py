"""Laws of the host name: whatever the kernel holds, what is told can travel."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.host.hostname import MAX_CHARACTERS, printable


@given(name=st.binary(max_size=400))
def test_any_bytes_become_a_short_name_that_can_be_sent_and_shown(name: bytes) -> None:
    told = printable(name.decode("utf-8", "surrogateescape"))
    assert len(told) <= MAX_CHARACTERS
    assert told.isprintable()
    assert told.encode().decode() == told


@given(name=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True))
def test_a_usual_name_is_told_as_it_is(name: str) -> None:
    assert printable(name) == name
