"""What one system made arrives on another: content always, and what is lost is told once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backup.restore.belonging import Belonging, Owners
from agent.backup.restore.placed import Done
from agent.backup.restore.placer import Placer
from agent.metadata.extras import Extras
from agent.metadata.system import SYSTEM
from agent.metadata.unsettable import LINUX, MACOS, UNKNOWN, WINDOWS, unsettable
from protocol.vault.chunk import Opener
from protocol.vault.differences import differences
from protocol.vault.entry import Entry, Owner, Stream
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine

US = Owner(os.geteuid(), os.getegid())
OF_A_MAC = (("macos.acl", b"\1"), ("macos.flags", b"\2\0\0\0"))


def placed(target: Path, *entries: Entry) -> Done:
    with Placer(
        bytes(target),
        Belonging(Owners.NUMBER),
        overwrite=False,
        flags=True,
        content_of=lambda _: (),
    ) as placer:
        for entry in entries:
            if placer.place(b"", entry):
                file = placer.create(b"", entry)
                assert file is not None
                assert placer.write(file, [entry.inline or b""])
                placer.close(file)
        placer.finish()
    return placer.done


@pytest.mark.skipif(sys.platform != "linux", reason="not run: says what Linux does")
def test_content_arrives_and_each_kind_that_does_not_is_told_once(tmp_path: Path) -> None:
    quarantine = (b"com.apple.quarantine", b"0000;59d84776;MySoftware.app;")
    files = [
        Entry(
            b"f%d" % number,
            0o100644,
            US,
            7,
            3,
            inline=b"abc",
            xattrs=(quarantine,),
            born_ns=5,
            extensions=OF_A_MAC,
        )
        for number in range(5)
    ]
    folder = Entry(b"folder", 0o40755, US, 7, extensions=(("windows.security", b"\1"),))
    link = Entry(b"link", 0o120777, US, 7, target=b"f1", extensions=OF_A_MAC[1:])
    done = placed(tmp_path, folder, *files, link)
    assert done.failed.count == 0
    assert [(tmp_path / f"f{number}").read_bytes() for number in range(5)] == [b"abc"] * 5
    assert [(one.path, one.reason) for one in done.warnings.kept] == [
        (b"", "attributes of 5 restored: Linux has no place for it"),
        (b"", "macos.acl of 5 restored: Linux has no place for it"),
        (b"", "macos.flags of 6 restored: Linux has no place for it"),
        (b"", "time of creation of 5 restored: Linux has no place for it"),
        (b"", "windows.security of 1 restored: Linux has no place for it"),
    ]


def test_what_a_system_made_is_settable_there() -> None:
    mac = Entry(b"x", 0o100644, US, 0, born_ns=1, xattrs=((b"a", b""),), extensions=OF_A_MAC)
    assert unsettable(mac, MACOS) == ()
    assert unsettable(mac, WINDOWS) == ("macos.acl", "macos.flags", "attributes")
    windows = Entry(
        b"x",
        0o100644,
        US,
        0,
        born_ns=1,
        streams=(Stream(b"Zone.Identifier", 0),),
        extensions=(("posix.mtime", b""), ("windows.attributes", b"")),
    )
    assert unsettable(windows, WINDOWS) == ()
    assert unsettable(windows, LINUX) == ("windows.attributes", "time of creation")
    linux = Entry(b"x", 0o100644, US, 0, extensions=(("posix.flags", b"\x10\0\0\0"),))
    assert (unsettable(linux, LINUX), unsettable(linux, MACOS)) == ((), ("posix.flags",))


@given(st.text(max_size=60), st.sampled_from((LINUX, MACOS, WINDOWS)))
def test_extensions_that_nobody_knows_are_told_everywhere(name: str, system: str) -> None:
    made = Entry(b"x", 0o100644, US, 0, extensions=((f"other.{name}", b""),))
    (told,) = unsettable(made, system)
    assert told in (f"other.{name}", UNKNOWN)
    assert told.isprintable()


def test_a_hostile_tree_cannot_make_many_warnings(tmp_path: Path) -> None:
    entries = [
        Entry(
            b"f%d" % number,
            0o100644,
            US,
            7,
            0,
            inline=b"",
            extensions=tuple((f"x{number:02}{kind:03}", b"") for kind in range(100)),
        )
        for number in range(20)
    ]
    done = placed(tmp_path, *entries)
    assert done.warnings.count == 33
    assert f"{UNKNOWN} of 1968 restored" in done.warnings.kept[0].reason


def test_what_a_system_says_of_a_file_is_in_the_tree_and_what_it_left_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    (machine.files / "one").write_bytes(b"1")
    extras = Extras(extensions=OF_A_MAC, born_ns=5, left_out=("its resource fork is too large",))
    monkeypatch.setattr("agent.backup.cut.read._extras_of", lambda _: extras)
    report = machine.back_up()
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    (found,) = [entry for _, entry in reader.entries(report.root) if entry.name == b"one"]
    assert (found.born_ns, found.extensions) == (5, OF_A_MAC)
    told = [one.reason for one in report.skipped.kept if one.path.endswith(b"/one")]
    assert told == ["its resource fork is too large"]


def test_a_file_that_is_in_a_cloud_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    for name in ("away", "here"):
        (machine.files / name).write_bytes(name.encode())
    inode = (machine.files / "away").stat().st_ino
    monkeypatch.setattr(type(SYSTEM), "is_away", lambda _, found: found.st_ino == inode)
    opened: list[object] = []
    real = os.open

    def noting(path: Any, *args: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", noting)
    report = machine.back_up()
    told = {one.path.rpartition(b"/")[2]: one.reason for one in report.skipped.kept}
    assert "in a cloud" in told[b"away"]
    assert b"here" in opened
    assert b"away" not in opened


def test_another_extension_is_named_without_its_bytes() -> None:
    old = Entry(b"x", 0o100644, US, 0, born_ns=1, extensions=OF_A_MAC)
    new = Entry(b"x", 0o100644, US, 0, extensions=((OF_A_MAC[0]), ("z\x1b[2J", b"secret")))
    found = differences(old, new, lambda *_: True)
    assert found == ("creation", "macos.flags", "'z\\x1b[2J'")
    assert differences(old, old, lambda *_: True) == ()
