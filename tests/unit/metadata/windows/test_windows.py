"""What an entry gets from Windows and gives to it, with recorded answers for Windows."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metadata.extras import Extras
from agent.metadata.named import NO_STREAMS, Named
from agent.metadata.port import System
from agent.metadata.windows import attributes, basic, native, security
from agent.metadata.windows.basic import Basic
from agent.metadata.windows.calls import Calls
from agent.metadata.windows.security import Ace, Acl, Sid
from agent.metadata.windows.windows import Windows
from protocol.errors import InvalidError
from protocol.vault.entry import Entry, Owner, check_entry
from tests.unit.metadata.windows import recorded
from tests.unit.metadata.windows.test_names import found_bytes

FILETIME = int.from_bytes(recorded.NTFS_FILETIME, "little")
FD = 7
PLAIN = Basic(created=FILETIME, attributes=recorded.NTFS_FILE_ATTRIBUTES)


@dataclass
class Recorded:
    """A file of Windows, in bytes."""

    told: Basic = PLAIN
    descriptor: bytes = recorded.NTFS_FILE
    point: bytes = b""
    refuses: bool = False
    opened: list[tuple[int, bytes]] = field(default_factory=list)
    parts: int = 0
    listed: Sequence[bytes] | None = ()
    folder: Path | None = None
    audited: bytes = b""
    privileged: bool = False
    asked: list[bool] = field(default_factory=list)

    def basic(self, fd: int) -> bytes:
        return basic.build(self.told)

    def set_basic(self, fd: int, data: bytes) -> None:
        self._refuse()
        given = basic.parse(data)
        kept = zip(self.told, given, strict=True)
        self.told = Basic(*(new or old for old, new in kept))

    def may_audit(self) -> bool:
        return self.privileged

    def security(self, fd: int, *, auditing: bool) -> bytes:
        self.asked.append(auditing)
        if auditing and not self.audited:
            raise OSError(errno.EINVAL, "Invalid argument")
        return self.audited if auditing else self.descriptor

    def set_security(self, fd: int, parts: int, data: bytes) -> None:
        self._refuse()
        if parts & security.AUDITING and not self.privileged:
            raise PermissionError(errno.EPERM, "A required privilege is not held by the client")
        self.parts, self.descriptor = self.parts | parts, data

    def reparse(self, fd: int) -> bytes:
        return self.point

    def set_reparse(self, fd: int, data: bytes) -> None:
        self._refuse()
        self.point = data

    def streams(self, fd: int) -> Sequence[bytes] | None:
        return self.listed

    def open_stream(self, fd: int, full: bytes, *, anew: bool) -> int:
        assert self.folder is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if anew else os.O_RDONLY
        return os.open(self.folder / full.hex(), flags, 0o600)

    def remove_stream(self, fd: int, full: bytes) -> None:
        assert self.folder is not None
        (self.folder / full.hex()).unlink()

    def open_at(self, directory_fd: int, name: bytes) -> int:
        self.opened.append((directory_fd, name))
        return os.open(os.devnull, os.O_RDONLY)

    def _refuse(self) -> None:
        if self.refuses:
            raise OSError(13, "Permission denied")


def entry(*extensions: tuple[str, bytes], born_ns: int | None = None) -> Entry:
    made = Entry(b"a", 0o100644, Owner(0, 0), 0, extensions=extensions, born_ns=born_ns)
    check_entry(made)
    return made


def test_it_is_a_system() -> None:
    calls: Calls = Recorded()
    system: System = Windows(calls)
    assert system.name == "Windows"
    assert (sys.platform == "win32") is hasattr(native, "Native")


def test_what_is_known_of_a_file() -> None:
    assert Windows(Recorded()).of_open(FD) == Extras(
        extensions=(
            ("windows.attributes", b"\x20\0\0\0"),
            ("windows.security", recorded.NTFS_FILE),
        ),
        born_ns=recorded.NTFS_MTIME_NS,
    )


@pytest.mark.parametrize(
    ("point", "is_link", "is_kept"),
    [
        (recorded.LINK_TO_DRIVE, True, False),
        (recorded.LINK_RELATIVE, True, False),
        (recorded.JUNCTION, True, True),
        (recorded.WSL_LINK, True, True),
        (b"\1\0\0\x80\4\0\0\0abcd", False, True),
    ],
)
def test_what_is_known_of_a_reparse_point(point: bytes, is_link: bool, is_kept: bool) -> None:
    calls = Recorded(told=Basic(created=FILETIME, attributes=0x410), point=point)
    found = Windows(calls).at(3, b"link")
    kept = dict(found.extensions)
    assert calls.opened == [(3, b"link")]
    assert kept.get("windows.attributes") == (b"\x10\0\0\0" if is_link else None)
    assert kept.get("windows.reparse") == (point if is_kept else None)
    assert found.left_out == ()


def test_what_cannot_be_kept_is_told_and_the_rest_is_kept() -> None:
    calls = Recorded(
        told=Basic(created=1, attributes=0x400 | 0x800 | 0x20),
        descriptor=recorded.NTFS_FILE[:-1],
        point=recorded.COMPACTED,
    )
    found = Windows(calls).of_open(FD)
    assert found.extensions == (("windows.attributes", b"\x20\0\0\0"),)
    assert found.born_ns is None
    assert len(found.left_out) == 4


@pytest.mark.parametrize(("bits", "is_away"), [(0x400020, True), (0x20, False)])
def test_placeholders_of_a_cloud_are_known(bits: int, is_away: bool) -> None:
    class Found:
        st_file_attributes = bits

    assert Windows(Recorded()).is_away(Found()) is is_away  # type: ignore[arg-type]


def test_what_is_kept_can_be_given_back() -> None:
    source = Recorded(
        told=Basic(created=FILETIME, attributes=0x23 | 0x400),
        descriptor=recorded.INHERITED,
        point=recorded.JUNCTION,
    )
    found = Windows(source).of_open(FD)
    made = entry(*found.extensions, born_ns=found.born_ns)
    calls = Recorded(told=Basic(created=5, written=6, attributes=0x2020))
    system = Windows(calls)
    assert list(system.give_at(3, b"a", made)) == []
    assert system.has_flags(made)
    system.give_flags(FD, made)
    assert calls.told == Basic(created=FILETIME, written=6, attributes=0x23)
    assert calls.point == recorded.JUNCTION
    # Only the access list is there, and Windows is asked to let it count as inherited.
    asked = security.parse(calls.descriptor)
    assert calls.parts == 4
    assert asked.control == 0x8504
    assert asked._replace(control=0x8404) == security.parse(recorded.INHERITED)


def test_taking_the_last_attribute_away_leaves_none() -> None:
    calls = Recorded(told=Basic(attributes=attributes.READONLY))
    Windows(calls).release(FD)
    assert calls.told.attributes == 0x80
    calls.refuses = True
    Windows(calls).release(FD)  # nothing to change, so nothing is asked


def test_what_windows_refuses_is_told() -> None:
    made = entry(
        ("windows.reparse", recorded.JUNCTION), ("windows.security", recorded.AZURE), born_ns=0
    )
    assert list(Windows(Recorded(refuses=True)).give(FD, made)) == [
        "windows.reparse: permission denied",
        "windows.security: permission denied",
        "time of creation: permission denied",
    ]


def test_what_the_volume_alone_gives_is_told() -> None:
    made = entry(("windows.attributes", attributes.build(0x8020)))
    assert list(Windows(Recorded()).give(FD, made)) == [
        "windows.attributes: 0x8000 are given by the volume alone"
    ]


NAMES = ("windows.attributes", "windows.reparse", "windows.security")


@given(st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_values_of_a_hostile_tree_are_told_or_set_as_they_are(values: list[bytes]) -> None:
    calls = Recorded()
    system = Windows(calls)
    made = entry(*zip(NAMES, values, strict=True))
    told = list(system.give(FD, made))
    assert calls.point in (b"", values[1])
    assert len(told) == 3 or calls.parts or calls.point or system.has_flags(made)
    if system.has_flags(made):
        system.give_flags(FD, made)


@pytest.mark.parametrize("end", range(basic.BYTES))
def test_an_answer_that_is_cut_short_is_refused(end: int) -> None:
    with pytest.raises(InvalidError):
        basic.parse(basic.build(Basic())[:end])


def test_times_and_attributes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidError):
        basic.build(Basic(created=1 << 63))


@pytest.mark.parametrize(
    ("kinds", "parts"), [((), 8), ((0x11,), 0x10), ((2,), 8), ((2, 0x11), 0x18)]
)
def test_a_label_is_set_without_the_right_to_audit(kinds: tuple[int, ...], parts: int) -> None:
    body = b"\1\0\0\0" + security.Sid(16, (8192,)).to_bytes()
    sacl = security.Acl(tuple(security.Ace(kind, 0, body) for kind in kinds))
    asked, _ = security.to_set(security.laid_out(security.SACL_PRESENT, sacl=sacl))
    assert asked == parts


AUDITED = security.build(
    security.laid_out(
        security.DACL_PRESENT | security.SACL_PRESENT,
        owner=Sid(5, (18,)),
        sacl=Acl((Ace(2, 0xC0, b"\xff\x01\x1f\x00" + Sid(1, (0,)).to_bytes()),)),
        dacl=Acl(()),
    )
)
"""Owner, an access list without rules, and a rule of auditing for everybody."""


def test_rules_of_auditing_are_read_where_the_privilege_is_there() -> None:
    calls = Recorded(audited=AUDITED)
    assert dict(Windows(calls).of_open(FD).extensions)[security.EXTENSION] == calls.descriptor
    assert calls.asked == [False]
    calls.privileged = True
    assert dict(Windows(calls).of_open(FD).extensions)[security.EXTENSION] == AUDITED
    # A volume that has none refuses the question, not the rest of the answer.
    calls.audited = b""
    assert dict(Windows(calls).of_open(FD).extensions)[security.EXTENSION] == calls.descriptor


@pytest.mark.parametrize("privileged", [True, False])
def test_rules_of_auditing_that_may_not_be_set_cost_nothing_else(*, privileged: bool) -> None:
    calls = Recorded(privileged=privileged)
    told = list(Windows(calls).give(FD, entry((security.EXTENSION, AUDITED))))
    assert calls.parts == 1 | 4 | (8 if privileged else 0)
    assert security.parse(calls.descriptor).owner == Sid(5, (18,))
    assert bool(told) is not privileged
    assert all("rules of auditing: a required privilege" in one for one in told)


def test_the_streams_of_a_file_are_what_windows_lists_beside_the_content() -> None:
    calls = Recorded(
        listed=(
            found_bytes("::$DATA", 9),
            found_bytes(":note:$DATA", 300_000),
            found_bytes(":Zone.Identifier:$DATA", 26),
            found_bytes(":bad:$EA", 1),
        )
    )
    found = Path(os.devnull).stat()
    listing = Windows(calls).streams(3, b"file", found)
    assert listing is not None
    assert listing.streams == (Named(b"Zone.Identifier", 26), Named(b"note", 300_000))
    (told,) = listing.left_out
    assert "bad" in told
    assert calls.opened == [(3, b"file")]
    # A directory is open already.
    assert Windows(calls).streams(3, b"", found) == listing
    assert len(calls.opened) == 1
    assert Windows(Recorded(listed=(found_bytes("::$DATA", 9),))).streams(3, b"", found) == (
        NO_STREAMS
    )
    assert Windows(Recorded(listed=None)).streams(3, b"", found) is None


def test_more_streams_than_an_entry_can_name_are_told() -> None:
    listed = [found_bytes(f":s{number:04}:$DATA", 1) for number in range(1026)]
    listing = Windows(Recorded(listed=listed)).streams(3, b"", Path(os.devnull).stat())
    assert listing is not None
    assert (len(listing.streams), len(listing.left_out)) == (1024, 2)


def test_a_stream_is_opened_by_its_whole_name(tmp_path: Path) -> None:
    system: System = Windows(Recorded(folder=tmp_path))
    content = os.urandom(100_000)
    with system.write_stream(3, b"file", b"note") as write:
        for piece in (content[:7], 20, content[7:], 5):
            write(piece)
    assert [bytes.fromhex(one.name) for one in tmp_path.iterdir()] == [b":note:$DATA"]
    room = bytearray(200_000)
    with system.read_stream(3, b"", b"note") as fill:
        got = fill(memoryview(room))
    assert room[:got] == content[:7] + bytes(20) + content[7:] + bytes(5)
    system.remove_stream(3, b"", b"note")
    assert list(tmp_path.iterdir()) == []
    assert not system.takes_stream(b"../other")
    with pytest.raises(InvalidError), system.write_stream(3, b"", b"a:b"):
        pass
