"""Security descriptors: recorded ones, made ones, and bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.windows import sddl, security
from agent.metadata.windows.security import Ace, Acl, Descriptor, Sid, build, laid_out, parse
from protocol.errors import InvalidError
from tests.unit.metadata.windows import recorded

WORDS = st.integers(0, 0xFFFF_FFFF)
SIDS = st.builds(Sid, st.integers(0, (1 << 48) - 1), st.lists(WORDS, max_size=15).map(tuple))
PLAIN_ACES = st.builds(
    lambda kind, flags, mask, sid: Ace(kind, flags, mask.to_bytes(4, "little") + sid.to_bytes()),
    st.sampled_from(sorted(security.PLAIN_KINDS)),
    st.integers(0, 255),
    WORDS,
    SIDS,
)
OPAQUE_ACES = st.builds(
    Ace,
    st.sampled_from((5, 6, 9, 0xB, 0x12, 0xFE)),
    st.integers(0, 255),
    st.binary(max_size=40).map(lambda body: body[: len(body) // 4 * 4]),
)
ACLS = st.builds(
    Acl,
    st.lists(PLAIN_ACES | OPAQUE_ACES, max_size=4).map(tuple),
    st.sampled_from((2, 3, 4)),
    st.tuples(st.integers(0, 255), st.integers(0, 0xFFFF)),
    st.binary(max_size=9),
)
DESCRIPTORS = st.builds(
    laid_out,
    st.integers(0, 0xFFFF).map(lambda control: control | 0x14),
    st.none() | SIDS,
    st.none() | SIDS,
    st.none() | ACLS,
    st.none() | ACLS,
)


@pytest.mark.parametrize("data", recorded.DESCRIPTORS)
def test_a_recorded_descriptor_comes_back_byte_for_byte(data: bytes) -> None:
    assert build(parse(data)) == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (recorded.NTFS_EXTEND, "O:BAG:BAD:(A;;0x12019f;;;SY)(A;;0x12019f;;;BA)"),
        (recorded.NTFS_FILE, "O:BAG:BAD:(A;OICI;FA;;;WD)"),
        (
            recorded.OWNER_ONLY,
            "O:S-1-5-21-782712087-4182988437-2163400469-1001"
            "G:S-1-5-21-782712087-4182988437-2163400469-1001",
        ),
        (
            recorded.INHERITED,
            "D:AI(A;OICIID;FA;;;S-1-5-21-782712087-4182988437-2163400469-1001)"
            "(A;OICIID;FA;;;BA)(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;WD)"
            "(A;OICIID;FA;;;S-1-5-21-782712087-4182988437-2163400469-1002)",
        ),
        (
            recorded.AZURE,
            "O:SYG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;0x1200a9;;;BU)"
            "(A;OICIIO;0xa0000000;;;BU)(A;OICI;0x1301bf;;;AU)(A;;FA;;;SY)(A;OICIIO;GA;;;CO)",
        ),
    ],
)
def test_a_recorded_descriptor_is_shown_as_windows_shows_it(data: bytes, text: str) -> None:
    assert sddl.text(parse(data)) == text


def test_a_label_of_integrity_and_a_rule_with_a_condition_are_shown() -> None:
    label = Ace(0x11, 0, b"\1\0\0\0" + Sid(16, (12288,)).to_bytes())
    sacl = Acl((label, Ace(9, 3, b"artx")))
    assert sddl.text(laid_out(security.SACL_PRESENT | 0x2800, sacl=sacl)) == (
        "S:PAI(ML;;NW;;;HI)(0x09;OICI;61727478)"
    )


def test_no_list_and_an_empty_list_are_not_the_same() -> None:
    everybody = laid_out(security.DACL_PRESENT)
    nobody = laid_out(security.DACL_PRESENT, dacl=Acl(()))
    assert parse(build(everybody)).dacl is None
    assert parse(build(nobody)).dacl == Acl(())
    assert sddl.text(everybody) == "D:NO_ACCESS_CONTROL"
    assert sddl.text(nobody) == "D:"


@given(DESCRIPTORS)
def test_what_is_built_is_parsed(made: Descriptor) -> None:
    data = build(made)
    assert parse(data) == made
    assert sddl.text(made)


@given(DESCRIPTORS, st.binary(min_size=1, max_size=8))
def test_bytes_behind_the_parts_are_kept(made: Descriptor, tail: bytes) -> None:
    data = build(made) + tail
    assert build(parse(data)) == data


@pytest.mark.parametrize("data", recorded.DESCRIPTORS)
def test_a_descriptor_that_is_cut_short_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(InvalidError):
            parse(data[:end])


@given(st.sampled_from(recorded.DESCRIPTORS), st.data())
def test_damage_is_refused_or_comes_back_as_it_is(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = parse(bytes(damaged))
    except InvalidError:
        return
    assert build(found) == bytes(damaged)
    assert sddl.text(found) is not None


@given(st.binary(max_size=64).map(lambda tail: b"\1\0\4\x80" + tail))
def test_random_bytes_are_refused_or_come_back(data: bytes) -> None:
    try:
        found = parse(data)
    except InvalidError:
        return
    assert build(found) == data


def changed(offset: int, value: bytes) -> bytes:
    data = recorded.NTFS_FILE
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (changed(0, b"\2"), "the unknown revision 2"),
        (changed(3, b"\0"), "holds pointers"),
        (changed(2, b"\0"), "an unannounced access list at 52"),
        (changed(4, b"\4"), "its owner inside its header, at 4"),
        (changed(4, b"\xff\xff"), "names 8 bytes at 65535"),
        (changed(8, b"\x14"), "two parts that share the bytes at 20"),
        (changed(20, b"\2"), "a SID of revision 2"),
        (changed(21, b"\x10"), "16 parts"),
        (changed(52, b"\7"), "a list of the unknown revision 7"),
        (changed(54, b"\4"), "list of 4 bytes"),
        (changed(54, b"\x1d"), "names 29 bytes"),
        (changed(56, b"\2"), "names 4 bytes at 28"),
        (changed(62, b"\x15"), "a rule of 21 bytes"),
        (changed(62, b"\0"), "a rule of 0 bytes"),
        (changed(62, b"\4"), "the rule at 8"),
        (recorded.NTFS_FILE + bytes(security.MAX_BYTES), "is the most"),
    ],
)
def test_what_contradicts_itself_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidError, match=problem):
        parse(data)


@pytest.mark.parametrize(
    "made",
    [
        laid_out(0, owner=Sid(5, (1,)))._replace(offsets=(12, 0, 0, 0)),
        laid_out(0, owner=Sid(5, (1,)))._replace(size=24),
        laid_out(0)._replace(size=security.MAX_BYTES + 1),
    ],
)
def test_a_layout_that_does_not_fit_is_not_built(made: Descriptor) -> None:
    with pytest.raises(InvalidError):
        build(made)


@pytest.mark.parametrize(
    "sid", [Sid(1 << 48, ()), Sid(5, (1,) * 16), Sid(5, (1 << 32,)), Sid(-1, ())]
)
def test_a_sid_that_does_not_fit_is_not_built(sid: Sid) -> None:
    with pytest.raises(InvalidError):
        sid.to_bytes()


def test_a_list_beyond_64_kib_is_not_built() -> None:
    with pytest.raises(InvalidError, match="longer than a descriptor can hold"):
        Acl((Ace(9, 0, bytes(40_000)),) * 2).to_bytes()
