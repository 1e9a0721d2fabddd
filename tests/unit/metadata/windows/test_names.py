"""Names of files and streams as Windows has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.windows import names, streams
from protocol.errors import InvalidError

UNITS = st.binary(max_size=40).map(lambda raw: raw[: len(raw) // 2 * 2])


@given(UNITS)
def test_every_name_of_windows_comes_back(units: bytes) -> None:
    assert names.to_units(names.from_units(units)) == units


@given(st.lists(st.sampled_from(("\ud83d", "\ude00", "a", "\ud800")), max_size=8))
def test_lone_surrogates_come_back(characters: list[str]) -> None:
    units = "".join(characters).encode("utf-16-le", "surrogatepass")
    assert names.to_units(names.from_units(units)) == units


@given(st.binary(max_size=20))
def test_other_bytes_are_refused_or_come_back(name: bytes) -> None:
    try:
        units = names.to_units(name)
    except InvalidError:
        assert names.problem_of(name) == "is not Unicode"
        return
    assert names.from_units(units) == name


def test_half_a_unit_and_a_character_in_halves_are_refused() -> None:
    with pytest.raises(InvalidError, match="not whole units"):
        names.from_units(b"abc")
    with pytest.raises(InvalidError, match="in two halves"):
        names.to_units(b"\xed\xa0\xbd\xed\xb8\x80")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b"report.txt", None),
        (b".profile", None),
        ("ü \ud800".encode("utf-8", "surrogatepass"), None),
        (b"console", None),
        (b"COM10", None),
        (b"COM", None),
        (b"a" * 255, None),
        (b"", "is empty"),
        (b"a" * 256, "is longer than"),
        ("😀".encode() * 128, "is longer than"),
        (b"\xff", "is not Unicode"),
        (b"a:b", "holds one of"),
        (b"a\\b", "holds one of"),
        (b"what?", "holds one of"),
        (b"a\nb", "holds one of"),
        (b"a.", "ends with"),
        (b"a ", "ends with"),
        (b"CON", "is the name of a device"),
        (b"nul.tar.gz", "is the name of a device"),
        (b"Com1", "is the name of a device"),
        ("LPT²".encode(), "is the name of a device"),
        (b"aux .txt", "is the name of a device"),
        (b"CONIN$", "is the name of a device"),
    ],
)
def test_which_names_windows_can_hold(name: bytes, problem: str | None) -> None:
    found = names.problem_of(name)
    assert found is None if problem is None else (found or "").startswith(problem)


def test_names_that_differ_in_case_alone_clash() -> None:
    found = names.clashes(
        ["Ärger".encode(), "ärger".encode(), b"b", b"B", b"b", b"c", b"\xff", "ß".encode(), b"SS"]
    )
    assert sorted(found) == sorted([(b"B", b"b"), ("Ärger".encode(), "ärger".encode())])


def found_bytes(name: str, size: int) -> bytes:
    return size.to_bytes(8, "little", signed=True) + name.encode("utf-16-le").ljust(592, b"\0")


def test_streams_that_are_found_are_named() -> None:
    assert streams.parse(found_bytes("::$DATA", 7)) == (b"", 7)
    assert streams.parse(found_bytes(":Zone.Identifier:$DATA", 26)) == (b"Zone.Identifier", 26)
    garbage = found_bytes(":a:$DATA\0rest of an older call", 1)
    assert streams.parse(garbage) == (b"a", 1)


@pytest.mark.parametrize(
    "data",
    [
        found_bytes(":a:$DATA", 1)[:-1],
        found_bytes(":a:$DATA", -1),
        bytes(8) + b"a\0" * 296,
        found_bytes(":a:$INDEX_ALLOCATION", 1),
        found_bytes("a:$DATA", 1),
        found_bytes(":$DATA", 1),
        found_bytes(":a:b:$DATA", 1),
        bytes(600),
        b"",
    ],
)
def test_what_is_no_stream_of_content_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        streams.parse(data)


@given(st.binary(max_size=30))
def test_a_stream_has_the_name_that_it_is_opened_by(name: bytes) -> None:
    try:
        full = streams.full_name(name)
    except InvalidError:
        assert streams.problem_of(name) is not None
        return
    assert streams.name_of(full) == name


@pytest.mark.parametrize("name", [b"", b"a:b", b"a/b", b"a\\b", b"a\0", b"\xff", b"a" * 256])
def test_a_stream_that_windows_cannot_hold_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidError):
        streams.full_name(name)
