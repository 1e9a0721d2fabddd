"""The numbers of a computer in its firmware's tables, whatever stands in them."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.hardware import parse_platform
from agent.host.smbios import numbers_of

UUID_TEXT = "4c4c4544-0042-3310-8051-b4c04f595132"
BIOS = bytes([0, 24]) + b"\0\0" + bytes(20) + b"Dell Inc.\x001.33.0\0\0"
SYSTEM = (
    bytes([1, 27]) + b"\1\0" + bytes([1, 2, 3, 4]) + UUID(UUID_TEXT).bytes_le + bytes([6, 0, 0])
    + b"Dell Inc.\0Latitude 7390\0\0"
)  # fmt: skip
BOARD = (
    bytes([2, 15]) + b"\2\0" + bytes([1, 2, 3, 4]) + bytes(7) + b"Dell\x000X\0A00\0 /AB/CN12 \0\0"
)
END = bytes([127, 4]) + b"\x7f\0\0\0"


def raw(*structures: bytes, length: int | None = None) -> bytes:
    tables = b"".join(structures)
    return struct.pack("<BBBBI", 0, 3, 2, 0, len(tables) if length is None else length) + tables


def system(serial: int, *strings: bytes) -> bytes:
    head = bytes([1, 27]) + b"\1\0" + bytes([1, 2, 3, serial]) + UUID(UUID_TEXT).bytes_le
    return head + bytes([6, 0, 0]) + b"\0".join(strings) + b"\0\0"


def test_the_numbers_are_found_among_other_structures() -> None:
    made = system(4, b"Dell Inc.", b"Latitude 7390", b"x", b"ABC1234")
    assert numbers_of(raw(BIOS, made, BOARD, END)) == (UUID_TEXT, "ABC1234", "/AB/CN12")


@pytest.mark.parametrize("number", [0, 5, 255])
def test_a_text_that_is_not_there_is_none(number: int) -> None:
    made = system(number, b"a", b"b", b"c", b"d")
    assert numbers_of(raw(made, END)) == (UUID_TEXT, "", "")


def test_a_structure_of_an_old_release_has_no_uuid() -> None:
    old = bytes([1, 8]) + b"\1\0" + bytes([1, 2, 3, 1]) + b"OLD1\0\0"
    assert numbers_of(raw(old, END)) == ("", "OLD1", "")
    assert numbers_of(raw(SYSTEM, END)) == (UUID_TEXT, "", "")


def test_tables_that_are_cut_short_are_read_as_far_as_they_go() -> None:
    whole = raw(BIOS, system(4, b"a", b"b", b"c", b"ABC1234"), BOARD, END)
    for end in range(len(whole)):
        found = numbers_of(whole[:end])
        assert found[0] in ("", UUID_TEXT)
        assert found[1] in ("", "ABC1234")
        assert found[2] in ("", "/AB/CN12")
    assert numbers_of(raw(bytes([1, 2, 0, 0, 0, 0]))) == ("", "", "")
    assert numbers_of(raw(BIOS, SYSTEM, length=2**32 - 1))[0] == UUID_TEXT


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    assert len(numbers_of(data)) == 3
    assert len(numbers_of(raw(data))) == 3


def test_a_mac_is_told_by_its_platform() -> None:
    output = """+-o J314sAP  <class IOPlatformExpertDevice, id 0x100000227, registered, matched>
    {
      "IOPolledInterface" = "AppleARMWatchdogTimerHibernateHandler is not serializable"
      "manufacturer" = <"Apple Inc.">
      "IOPlatformUUID" = "11111111-2222-3333-4444-555555555555"
      "IOPlatformSerialNumber" = "C02XXXXXXXXX"
    }
"""
    assert parse_platform(output) == ["11111111-2222-3333-4444-555555555555", "c02xxxxxxxxx"]
    assert parse_platform("") == []
