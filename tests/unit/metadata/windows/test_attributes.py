"""Attributes and times of Windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.windows import attributes
from protocol.errors import InvalidError
from protocol.vault.entry import MAX_INTEGER
from tests.unit.metadata.windows import recorded


@pytest.mark.parametrize(
    ("found", "is_link", "kept", "told"),
    [
        (recorded.NTFS_ROOT_ATTRIBUTES, False, 0x26, []),
        (recorded.NTFS_FILE_ATTRIBUTES, False, 0x20, []),
        (recorded.NTFS_LINK_ATTRIBUTES, False, 0x24, []),
        (recorded.NTFS_WSL_ATTRIBUTES, True, 0x20, []),
        (recorded.NTFS_SECURE_ATTRIBUTES, False, 0x06, ["its attributes 0x20000000"]),
        (0x80, False, 0, []),
        (0x410, True, 0x10, []),
        (0x410, False, 0, []),
        (0x4820, False, 0x20, ["its compression", "its encryption"]),
        (0x501620, False, 0x20, ["its content is not on this machine"]),
        (0x2A007, False, 0x2A007, []),
    ],
)
def test_what_is_kept_and_what_is_told(
    found: int, is_link: bool, kept: int, told: list[str]
) -> None:
    bits, reasons = attributes.kept(found, is_link=is_link)
    assert bits == kept
    assert len(reasons) == len(told)
    assert all(reason.startswith(start) for reason, start in zip(reasons, told, strict=True))


@given(st.integers(0, 0xFFFF_FFFF), st.booleans())
def test_what_is_kept_can_be_written_down(found: int, is_link: bool) -> None:
    bits, _ = attributes.kept(found, is_link=is_link)
    assert attributes.parse(attributes.build(bits)) == bits


@pytest.mark.parametrize("value", [b"", b"\1\0\0", b"\1\0\0\0\0", b"\0\0\0\x80", b"\x80\0\0\0"])
def test_what_no_backup_keeps_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidError):
        attributes.parse(value)
    with pytest.raises(InvalidError):
        attributes.build(attributes.AWAY)


@pytest.mark.parametrize("bit", [0x1000, 0x40000, 0x400000])
def test_content_that_is_elsewhere_is_known(bit: int) -> None:
    assert attributes.is_away(0x20 | bit)
    assert not attributes.is_away(0x20)


def test_a_recorded_time_is_the_one_that_stat_tells() -> None:
    filetime = int.from_bytes(recorded.NTFS_FILETIME, "little")
    assert attributes.to_ns(filetime) == recorded.NTFS_MTIME_NS
    assert attributes.to_filetime(recorded.NTFS_MTIME_NS) == filetime


@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_times_come_back_to_100_ns(ns: int) -> None:
    filetime = attributes.to_filetime(ns)
    assert 0 <= ns - (filetime - 116_444_736_000_000_000) * 100 < 100


@pytest.mark.parametrize("filetime", [-1, 0, 1, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_times_beyond_64_bits_are_refused(filetime: int) -> None:
    with pytest.raises(InvalidError):
        attributes.to_ns(filetime)


@pytest.mark.parametrize("ns", [-11_644_473_600_000_000_000, -(1 << 64), 1 << 70])
def test_times_that_windows_has_not_are_refused(ns: int) -> None:
    with pytest.raises(InvalidError):
        attributes.to_filetime(ns)


def test_no_time_of_creation_is_none() -> None:
    assert attributes.born_ns(0) is None
    assert attributes.born_ns(116_444_736_000_000_000) == 0
