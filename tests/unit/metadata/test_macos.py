"""What macOS knows of files, from recorded facts; nothing here was run on a Mac.

Where each fact is from:
- the layout of access control lists, their bits and the limit of 128: `bsd/sys/kauth.h` of
  apple/darwin-xnu; that `acl_copy_ext` swaps to big endian: Apple's Libc, `acl_translate.c`;
- the list of `everyone` and its five rights: what `acl_to_text` printed on a Mac, in
  HackTricks, "macOS xattr-acls extra stuff"; `group:everyone deny delete` of every home
  folder: eclecticlight.co, "Permissions and ACLs", 16 February 2022;
- `HOME` and `TEMPORARY`: portable and native bytes of the lists of a home folder and of a
  folder in `/private/tmp`, recorded on a Mac in a public repository's notes on its host
  (SHA-256 of the first begins with 5fcce06f, as is said there), beside what `acl_to_text`
  gave for the second: `allow,file_inherit,directory_inherit:read,execute,readattr,
  readextattr,readsecurity`, and `CHILD`, the list that a folder made in it inherited;
- the order of the words in a line: `chmod(1)` and `ls(1)` of macOS, and the lines in
  aplawrence.com, "OS X ACL usage" (`1: user:tony inherited allow write`);
- the quarantine value: usr-local.org, "Extended Attributes"; that `com.apple.system.` is
  closed to programs: `xattr_protected` in `bsd/vfs/vfs_xattr.c` of apple/darwin-xnu;
- the flags: `bsd/sys/stat.h` of apple/darwin-xnu, and the `stat` module of CPython.
"""

from __future__ import annotations

import hashlib
import stat
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.macos import acl, attributes, flags, moment
from protocol.errors import InvalidError
from protocol.vault.entry import MAX_INTEGER, MAX_XATTR_BYTES, MAX_XATTRS, Entry, Owner, check_entry

EVERYONE = bytes.fromhex("abcdefabcdefabcdefabcdef0000000c")
HEADER = pack(">I32sII", 0x012CC16D, bytes(32), 1, 0)
DENY_DELETE = HEADER + EVERYONE + pack(">II", 2, 1 << 4)
HOME = bytes.fromhex(
    "012cc16d000000000000000000000000000000000000000000000000000000000000000000000001"
    "00000000abcdefabcdefabcdefabcdef0000000c0000000200000010"
)
HOME_NATIVE = bytes.fromhex(
    "6dc12c01000000000000000000000000000000000000000000000000000000000000000001000000"
    "00000000abcdefabcdefabcdefabcdef0000000c0200000010000000"
)
TEMPORARY = bytes.fromhex(
    "012cc16d000000000000000000000000000000000000000000000000000000000000000000000001"
    "0000000094868cb291d344208743d81fcebe47a80000006100000a8a"
)

CHILD = TEMPORARY[:60] + bytes.fromhex("0000007100000a8a")

ACES = st.builds(
    acl.Ace,
    st.one_of(
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=4, max_size=4).map(bytes.fromhex("ffffeeeeddddccccbbbbaaaa").__add__),
        st.binary(min_size=4, max_size=4).map(EVERYONE[:12].__add__),
    ),
    st.builds(
        lambda kind, rest: rest & ~0xF | kind, st.sampled_from((1, 2)), st.integers(0, 2**32 - 1)
    ),
    st.integers(0, 2**32 - 1),
)
ACLS = st.builds(acl.Acl, st.lists(ACES, max_size=8).map(tuple), st.integers(0, 2**32 - 1))


def test_the_list_of_every_home_folder_is_read() -> None:
    assert hashlib.sha256(HOME).hexdigest().startswith("5fcce06fb1ed90e6")
    assert HOME == DENY_DELETE
    found = acl.parse(HOME)
    assert found is not None
    assert acl.lines(found, is_folder=True) == ["0: group:everyone deny delete"]
    assert acl.pack(found) == acl.kept(DENY_DELETE) == DENY_DELETE


def test_a_recorded_list_that_is_inherited_from_is_read() -> None:
    found = acl.parse(TEMPORARY)
    assert found is not None
    assert acl.lines(found, is_folder=True) == [
        "0: 94868CB2-91D3-4420-8743-D81FCEBE47A8 allow "
        "list,search,readattr,readextattr,readsecurity,file_inherit,directory_inherit"
    ]


def test_a_recorded_list_that_was_inherited_is_read() -> None:
    found = acl.parse(CHILD)
    assert found is not None
    (line,) = acl.lines(found, is_folder=False)
    assert line.split()[1:4] == ["94868CB2-91D3-4420-8743-D81FCEBE47A8", "inherited", "allow"]
    assert "read,execute,readattr,readextattr,readsecurity" in line


def test_the_native_form_is_refused_rather_than_misread() -> None:
    with pytest.raises(InvalidError, match="begins with 0x6dc12c01"):
        acl.parse(HOME_NATIVE)


def test_a_recorded_list_has_the_rights_that_its_mac_printed() -> None:
    line = "0: group:everyone deny write,writeattr,writeextattr,writesecurity,chown"
    found = acl.read_lines([line])
    assert found == acl.Acl((acl.Ace(EVERYONE, 2, 0x3504),))
    assert acl.lines(found, is_folder=False) == [line]
    assert acl.lines(found, is_folder=True) == [line.replace(" write,", " add_file,")]


def test_what_is_inherited_is_said_before_what_is_allowed() -> None:
    shown = [
        "0: group:80 allow write",
        "1: user:501 inherited allow read,write,delete,file_inherit,directory_inherit",
        "2: 0A81CB4B-8F5C-4E1C-B9A1-5D0FAEADF10D allow readattr",
    ]
    found = acl.read_lines(shown)
    assert [one.flags for one in found.entries] == [1, 0x71, 1]
    assert found.entries[1].who.hex() == "ffffeeeeddddccccbbbbaaaa000001f5"
    assert acl.lines(found, is_folder=False) == shown


@given(ACLS)
def test_bytes_and_lines_say_the_same(found: acl.Acl) -> None:
    assert acl.parse(acl.pack(found)) == found
    for is_folder in (False, True):
        assert acl.read_lines(acl.lines(found, is_folder=is_folder)) == found


@given(ACLS)
def test_a_list_that_is_cut_off_is_refused(found: acl.Acl) -> None:
    whole = acl.pack(found)
    for length in range(0, len(whole), 7):
        with pytest.raises(InvalidError, match="access control list"):
            acl.parse(whole[:length])
    with pytest.raises(InvalidError, match="access control list"):
        acl.parse(whole + b"\0")


@given(st.binary(max_size=120))
def test_bytes_of_anybody_are_a_list_or_refused(data: bytes) -> None:
    for one in (data, HEADER[:4] + data, HEADER + data):
        try:
            found = acl.parse(one)
        except InvalidError:
            continue
        assert found is None or acl.parse(acl.pack(found)) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pack(">I32sII", 0x012CC16D, bytes(32), 129, 0), "has 129 entries"),
        (pack(">I32sII", 0x012CC16D, bytes(32), 0xFFFFFFFE, 0), "4294967294 entries"),
        (HEADER + EVERYONE + pack(">II", 3, 16), "no known kind"),
        (HEADER + EVERYONE + pack(">II", 0, 16), "no known kind"),
    ],
)
def test_hostile_lists_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        acl.kept(data)


def test_no_list_and_an_empty_one_are_not_kept_and_owners_are_dropped() -> None:
    assert acl.parse(pack(">I32sII", 0x012CC16D, bytes(32), 0xFFFFFFFF, 0)) is None
    assert acl.kept(pack(">I32sII", 0x012CC16D, bytes(32), 0xFFFFFFFF, 0)) == b""
    assert acl.kept(pack(">I32sII", 0x012CC16D, bytes(32), 0, 0)) == b""
    owned = DENY_DELETE[:4] + bytes(range(32)) + DENY_DELETE[36:]
    assert acl.kept(owned) == DENY_DELETE


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1: group:everyone deny delete",
        "0: group:everyone may delete",
        "0: group:everyone deny fly",
        "0: user:-1 deny delete",
        "0: user:4294967296 deny delete",
        "0: tony deny delete",
        "list fly",
    ],
)
def test_lines_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(InvalidError, match="access control list"):
        acl.read_lines([line])


def test_attributes_of_the_system_and_empty_finder_records_are_not_kept() -> None:
    quarantine = (b"com.apple.quarantine", b"0000;59d84776;MySoftware.app;")
    finder = (attributes.FINDER_INFO, b"TEXTttxt" + bytes(24))
    found = [
        quarantine,
        finder,
        (b"com.apple.decmpfs", b"fpmc\4" + bytes(11)),
        (b"com.apple.system.Security", DENY_DELETE),
    ]
    assert attributes.choose(found) == attributes.Chosen((finder, quarantine))
    assert attributes.choose([(attributes.FINDER_INFO, bytes(32))]) == attributes.Chosen(())


def test_an_attribute_beyond_the_format_is_told_and_not_kept() -> None:
    fits = attributes.choose([(b"large", bytes(MAX_XATTR_BYTES))])
    assert fits.xattrs
    assert not fits.left_out
    large = attributes.choose([(b"large", bytes(MAX_XATTR_BYTES + 1)), (b"a", b"")])
    assert large.xattrs == ((b"a", b""),)
    assert large.left_out == ("its attribute large of 65537 bytes is larger than 64 KiB",)


def test_too_many_attributes_are_told() -> None:
    found = [(b"%05d" % number, b"") for number in range(MAX_XATTRS + 2)]
    chosen = attributes.choose(found)
    assert len(chosen.xattrs) == MAX_XATTRS
    assert len(chosen.left_out) == 2


@given(
    st.dictionaries(
        st.one_of(
            st.binary(min_size=1, max_size=130),
            st.sampled_from((attributes.FINDER_INFO, attributes.RESOURCE_FORK)),
        ),
        st.binary(max_size=64),
        max_size=8,
    )
)
def test_what_is_chosen_always_fits_an_entry(found: dict[bytes, bytes]) -> None:
    chosen = attributes.choose(found.items())
    check_entry(Entry(b"x", 0o100644, Owner(0, 0), 0, xattrs=chosen.xattrs))


def test_the_flags_are_those_of_the_system() -> None:
    names = ("NODUMP", "IMMUTABLE", "APPEND", "OPAQUE")
    assert [getattr(stat, f"UF_{name}") for name in names] == [1, 2, 4, 8]
    assert (flags.HIDDEN, flags.COMPRESSED) == (stat.UF_HIDDEN, stat.UF_COMPRESSED)
    assert flags.OF_SYSTEM == stat.SF_ARCHIVED | stat.SF_IMMUTABLE | stat.SF_APPEND
    assert flags.is_away(0x4000_0020)
    assert not flags.is_away(0xFFFF)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.booleans())
def test_flags_come_back_and_others_stay(found: int, wanted: int, is_root: bool) -> None:
    made = Entry(b"x", 0o100644, Owner(0, 0), 0, extensions=flags.extension_of(wanted))
    assert flags.flags_of(made) == wanted & flags.KEPT
    new = flags.settable(found, flags.flags_of(made), is_root=is_root)
    assert new & ~flags.KEPT == found & ~flags.KEPT
    assert new & flags.OF_OWNER == wanted & flags.OF_OWNER
    assert new & flags.OF_SYSTEM == (wanted if is_root else found) & flags.OF_SYSTEM


@pytest.mark.parametrize("value", [b"", b"\2", b"\2\0\0", b"\2\0\0\0\0"])
def test_flags_of_another_length_are_none(value: bytes) -> None:
    made = Entry(b"x", 0o100644, Owner(0, 0), 0, extensions=((flags.NAME, value),))
    assert flags.flags_of(made) == 0


def test_the_question_for_the_time_of_creation_is_struct_attrlist() -> None:
    assert moment.wanted().hex() == "05000000" + "00020000" + "00000000" * 4


@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_times_of_creation_come_back(born_ns: int) -> None:
    answer = pack("<I", 20) + moment.timespec_of(born_ns)
    assert moment.born_of(answer) == born_ns
    for length in range(20):
        with pytest.raises(InvalidError, match="time of creation"):
            moment.born_of(answer[:length])


@pytest.mark.parametrize("answer", [pack("<Iqq", 24, 1, 1), pack("<Iqq", 20, 1, 10**9)])
def test_other_answers_about_the_time_of_creation_are_refused(answer: bytes) -> None:
    with pytest.raises(InvalidError, match="time of creation"):
        moment.born_of(answer)
