"""Reparse points: recorded ones, made ones, and bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.windows import reparse
from agent.metadata.windows.reparse import Link, Reparse, build, link_of, parse, target_of
from protocol.errors import InvalidError
from tests.unit.metadata.windows import recorded

NAMES = st.binary(min_size=2, max_size=60).map(
    lambda raw: (
        raw[: len(raw) // 2 * 2].decode("utf-16-le", "surrogatepass").replace("\0", "x")
    ).encode("utf-8", "surrogatepass")
)
LINKS = st.builds(Link, NAMES, st.just(b"") | NAMES, st.booleans())


@pytest.mark.parametrize("data", recorded.REPARSE_POINTS)
def test_a_recorded_point_comes_back_byte_for_byte(data: bytes) -> None:
    assert build(parse(data)) == data


@pytest.mark.parametrize(
    ("data", "link", "target", "is_kept_beside"),
    [
        (recorded.LINK_TO_DRIVE, Link(rb"\??\C:\Target", rb"C:\Target"), rb"C:\Target", False),
        (recorded.LINK_RELATIVE, Link(b"Target", b"Target", True), b"Target", False),
        (
            recorded.JUNCTION,
            Link(rb"\??\E:\tmp\g1-other", rb"E:\tmp\g1-other"),
            rb"E:\tmp\g1-other",
            True,
        ),
        (recorded.SAMBA_RELATIVE, Link(b"target.txt", b"target.txt", True), b"target.txt", True),
        (recorded.SAMBA_UNIX, Link(b"/etc/hostname", b"/etc/hostname"), b"/etc/hostname", True),
        (recorded.WSL_LINK, None, b"secret.txt", True),
        (recorded.COMPACTED, None, None, True),
    ],
)
def test_where_a_recorded_point_leads(
    data: bytes, link: Link | None, target: bytes | None, is_kept_beside: bool
) -> None:
    assert link_of(parse(data)) == link
    assert target_of(parse(data)) == target
    assert reparse.needs_extension(data) is is_kept_beside


def test_links_are_written_as_windows_writes_them() -> None:
    assert build(reparse.from_target(rb"C:\Target")) == recorded.LINK_TO_DRIVE
    assert build(reparse.from_target(b"Target")) == recorded.LINK_RELATIVE
    junction = reparse.junction(Link(rb"\??\E:\tmp\g1-other", rb"E:\tmp\g1-other"))
    assert build(junction) == recorded.JUNCTION


def test_a_link_to_a_share_leads_there() -> None:
    link = link_of(reparse.from_target(rb"\\server\share"))
    assert link == Link(rb"\??\UNC\server\share", rb"\\server\share")


@given(LINKS)
def test_links_come_back(link: Link) -> None:
    assert link_of(parse(build(reparse.symlink(link)))) == link
    assert link_of(parse(build(reparse.junction(link)))) == link._replace(is_relative=False)


@given(NAMES)
def test_a_target_comes_back_from_the_link_that_it_makes(target: bytes) -> None:
    made = reparse.from_target(target)
    assert target_of(made) == target
    assert not reparse.needs_extension(build(made))


@given(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=100), st.integers(0, 0xFFFF))
def test_what_drivers_keep_comes_back(tag: int, data: bytes, reserved: int) -> None:
    made = Reparse(tag, data, reserved)
    assert parse(build(made)) == made


@pytest.mark.parametrize("data", recorded.REPARSE_POINTS)
def test_a_point_that_is_cut_short_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(InvalidError):
            parse(data[:end])


@pytest.mark.parametrize(
    "data", [recorded.LINK_TO_DRIVE, recorded.LINK_RELATIVE, recorded.JUNCTION]
)
def test_a_link_whose_names_are_cut_short_is_refused(data: bytes) -> None:
    whole = parse(data)
    ends = len(whole.data) - (2 if whole.tag == reparse.MOUNT_POINT else 0)
    for end in range(ends):
        with pytest.raises(InvalidError):
            link_of(whole._replace(data=whole.data[:end]))


@given(
    st.sampled_from((reparse.SYMLINK, reparse.MOUNT_POINT, reparse.WSL_SYMLINK)),
    st.binary(max_size=48),
)
def test_random_bytes_are_refused_or_lead_somewhere(tag: int, data: bytes) -> None:
    try:
        target = target_of(Reparse(tag, data))
    except InvalidError:
        return
    assert target


def test_a_link_that_leads_nowhere_is_refused() -> None:
    for data in (b"", b"\2\0\0\0", b"\1\0\0\0a", b"\2\0\0\0a\0b"):
        with pytest.raises(InvalidError, match="leads nowhere"):
            target_of(Reparse(reparse.WSL_SYMLINK, data))
    with pytest.raises(InvalidError, match="leads nowhere"):
        link_of(reparse.symlink(Link(b"", b"a")))
    assert target_of(reparse.symlink(Link(b"\\??\\", b""))) == b"\\??\\"


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InvalidError, match="cannot hold 16384 bytes"):
        build(Reparse(1, bytes(16 * 1024)))
    with pytest.raises(InvalidError, match="is the most"):
        parse(b"\1\0\0\0\xf9\x3f\0\0" + bytes(0x3FF9))
    with pytest.raises(InvalidError, match="too long"):
        reparse.symlink(Link(b"a" * 40_000, b""))


def test_what_drivers_put_under_content_is_told() -> None:
    compacted = reparse.reason_dropped(parse(recorded.COMPACTED).tag)
    assert compacted is not None
    assert "compression" in compacted
    for tag in (0x9000001A, 0x9000101A, 0x9000F01A):
        assert "cloud" in (reparse.reason_dropped(tag) or "")
    for tag in (reparse.SYMLINK, reparse.MOUNT_POINT, 0x9000001B):
        assert reparse.reason_dropped(tag) is None
