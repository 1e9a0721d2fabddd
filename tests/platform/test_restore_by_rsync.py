"""A nasty tree, backed up and restored by the installed programs, compared by rsync.

Nothing of ours judges: rsync compares content, modes, owners, times, links, ACLs and
attributes, and `stat` what rsync rounds or leaves out.
"""

# ruff: noqa: PTH101, PTH102, PTH103, PTH109, PTH123, PTH211
from __future__ import annotations

import json
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import Installation
from tests.fakes.typed import TypedInstallation

IS_ROOT = os.geteuid() == 0
SECOND = 1_000_000_000
TOOLS = [tool for tool in ("rsync", "setfacl") if shutil.which(tool) is None]

pytestmark = pytest.mark.skipif(bool(TOOLS), reason=f"not run: {', '.join(TOOLS)} missing")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = TypedInstallation(tmp_path_factory.mktemp("rsync"))
    with made.enrolled():
        yield made


def round_trip(installation: Installation, files: Path, number: int) -> Path:
    """Back up and restore a directory; where it came to lie."""
    target = installation.home / f"restored{number}"
    installation.must("stead", "backup", "run", "all", "--path", str(files), "--yes")
    machine = installation.must("stead", "machine", "ls", "--output", "json")
    name = machine.split('"name":')[1].split('"')[1]
    installation.must("stead", "backup", "restore", name, "latest", str(files), "--to", str(target))
    return target / files.name


def differences(one: Path, other: Path) -> list[str]:
    """What rsync would do to make `other` like `one`, and what it does not look at."""
    # Blocks are counted, and the last of them are given out when a file reaches the disk.
    os.sync()
    kinds = "-rlptgoD" if IS_ROOT else "-rlptD"
    ended = subprocess.run(
        ["rsync", kinds, "-HAXn", "--specials", "--checksum", "--delete", "--itemize-changes",
         "--exclude=/deep", "--exclude=/sparse/4G", f"{one}/", f"{other}/"],
        capture_output=True, check=True,
    )  # fmt: skip
    found = ended.stdout.decode(errors="backslashreplace").splitlines()
    before, after = facts(one), facts(other)
    for name in sorted(before.keys() ^ after.keys()):
        found.append(f"only once: {name[-80:]!r}")
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            found.append(f"{name[-80:]!r}: {before[name]} became {after[name]}")
    return found


def facts(top: Path) -> dict[bytes, tuple[int, ...]]:
    """Of everything: mode, owner, nanoseconds, size, device, and the blocks of sparse files."""
    found: dict[bytes, tuple[int, ...]] = {}

    def visit(fd: int, above: bytes) -> None:
        for text in os.listdir(fd):
            name = os.fsencode(text)
            one = os.stat(name, dir_fd=fd, follow_symlinks=False)
            path = above + b"/" + name
            is_file, is_device = stat.S_ISREG(one.st_mode), one.st_mode >> 12 in (2, 6)
            found[path] = (
                one.st_mode,
                one.st_uid,
                one.st_gid,
                one.st_mtime_ns,
                one.st_size if is_file else 0,
                one.st_rdev if is_device else 0,
                one.st_blocks if path.startswith(b"/sparse/") else 0,
            )
            if stat.S_ISDIR(one.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                try:
                    visit(below, path)
                finally:
                    os.close(below)

    fd = os.open(top, os.O_RDONLY)
    try:
        visit(fd, b"")
    finally:
        os.close(fd)
    return found


def write(path: bytes, content: bytes = b"x") -> None:
    with open(path, "wb") as file:
        file.write(content)


def make_names(top: bytes) -> None:
    os.mkdir(top)
    for name in (
        b"n" * 255, b"\xff\xfe\x80", b"new\nline", b"\x1b[31mred\x07", b"-rf", b"--", b" ", b"...",
        b"\\x41", "é".encode(), "e\u0301".encode(), b"*", b"\x01", b"\x7f", b"q\"'$`",
    ):  # fmt: skip
        write(top + b"/" + name, name)
    os.mkdir(top + b"/\xff folder\n")
    write(top + b"/\xff folder\n/\xfe", b"k" * 500)


def make_links(top: bytes) -> None:
    os.makedirs(top + b"/a/deeper")
    os.mkdir(top + b"/b")
    for name, content in ((b"big", 700_000), (b"mid", 5_000), (b"tiny", 3)):
        write(top + b"/a/" + name, random.Random(content).randbytes(content))
        os.link(top + b"/a/" + name, top + b"/b/" + name)
        os.link(top + b"/a/" + name, top + b"/a/deeper/" + name)
    for name, leads in (
        (b"dangling", b"nowhere"),
        (b"absolute", b"/etc/hosts"),
        (b"long", b"x" * 4000),
        (b"odd", b"\xff\n\x1b[31m"),
        (b"folder", b"a"),
    ):
        os.symlink(leads, top + b"/" + name)
    os.mkfifo(top + b"/pipe")
    os.link(top + b"/pipe", top + b"/b/pipe")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(top)
        listening.bind("socket")
    finally:
        os.chdir(here)
        listening.close()


def make_modes(top: bytes) -> None:
    os.mkdir(top)
    for mode in (0o4755, 0o2755, 0o1777, 0o7777, 0o400, 0o600, 0o0 if IS_ROOT else 0o444):
        write(top + b"/f%o" % mode)
        os.chmod(top + b"/f%o" % mode, mode)
    for mode in (0o1777, 0o2775, 0o555, 0o711):
        os.mkdir(top + b"/d%o" % mode)
        write(top + b"/d%o/in" % mode)
        os.chmod(top + b"/d%o" % mode, mode)


def make_sizes(top: bytes) -> None:
    os.makedirs(top + b"/empty/folder")
    chance = random.Random(5)
    for limit in (0, 256, 4096, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20):
        for size in {max(limit - 1, 0), limit, limit + 1}:
            write(top + b"/random%d" % size, chance.randbytes(size))
            write(top + b"/zeros%d" % size, bytes(size))


def make_sparse(top: bytes) -> None:
    os.mkdir(top)
    for name, size, pieces in (
        (b"4G", (4 << 30) + 5, [(0, b"start"), (4 << 30, b"end!!")]),
        (b"hole", 1 << 20, []),
        (b"short", 100_000, []),
        (b"end", 1 << 20, [(0, b"x" * 5000)]),
        (b"start", 1 << 20, [((1 << 20) - 4096, b"y" * 4096)]),
        (b"comb", 8 << 20, [(place << 16, b"%064d" % place * 64) for place in range(128)]),
    ):
        with open(top + b"/" + name, "wb") as file:
            file.truncate(size)
            for place, piece in pieces:
                file.seek(place)
                file.write(piece)


def make_deep(top: bytes) -> None:
    os.mkdir(top)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(100):
        os.mkdir(b"z" * 60, dir_fd=fd)
        below = os.open(b"z" * 60, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    deepest = os.open(b"deepest", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.write(deepest, b"content")
    os.close(deepest)
    os.close(fd)


def make_times(top: bytes) -> None:
    os.mkdir(top)
    moments = [0, -1, -SECOND, -1_500_000_000 * SECOND + 7, 999_999_999, 2**31 * SECOND + 5,
               2**32 * SECOND + 123_456_789, 15_000_000_000 * SECOND]  # fmt: skip
    for number, moment in enumerate(moments):
        names = (b"/f%d" % number, b"/l%d" % number, b"/d%d" % number)
        write(top + names[0], b"t" * (number * 300))
        os.symlink(b"x", top + names[1])
        os.mkdir(top + names[2])
        for name in names:
            os.utime(top + name, ns=(moment, moment), follow_symlinks=False)


def make_attributes(top: bytes) -> None:
    os.mkdir(top)
    write(top + b"/file")
    os.setxattr(top + b"/file", "user.empty", b"")
    os.setxattr(top + b"/file", "user.bytes", bytes(range(256)))
    os.setxattr(top, "user.folder", b"d")
    write(top + b"/listed")
    os.mkdir(top + b"/inherits")
    subprocess.run(
        ["setfacl", "-m", "u:1234:rwx,g:999:r,m::r", os.fsdecode(top + b"/listed")], check=True
    )
    subprocess.run(
        ["setfacl", "-m", "u:77:rx,d:u:88:rwx,d:g:5:r", os.fsdecode(top + b"/inherits")],
        check=True,
    )
    write(top + b"/inherits/child")


def make_what_root_may(top: bytes) -> None:
    os.mkdir(top)
    os.mknod(top + b"/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top + b"/loop", 0o640 | stat.S_IFBLK, os.makedev(7, 300))
    os.mknod(top + b"/far", 0o600 | stat.S_IFCHR, os.makedev(4095, 1_048_575))
    write(top + b"/owned")
    os.chown(top + b"/owned", 12_345, 4_294_967_294)
    os.chmod(top + b"/owned", 0o6755)
    os.symlink(b"x", top + b"/link")
    os.chown(top + b"/link", 1000, 1001, follow_symlinks=False)
    os.setxattr(top + b"/link", "trusted.link", b"1", follow_symlinks=False)
    write(top + b"/able", b"c" * 600)
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(top + b"/able", "security.capability", capability)


def test_a_nasty_tree_comes_back_as_it_was(installation: Installation) -> None:
    files = installation.home / "files"
    files.mkdir()
    top = os.fsencode(files)
    make_names(top + b"/names")
    make_links(top + b"/links")
    make_modes(top + b"/modes")
    make_sizes(top + b"/sizes")
    make_sparse(top + b"/sparse")
    make_deep(top + b"/deep")
    make_times(top + b"/times")
    make_attributes(top + b"/attributes")
    restored = round_trip(installation, files, 0)
    assert differences(files, restored) == []
    with (restored / "sparse" / "4G").open("rb") as file:
        assert file.read(6) == b"start\0"
        file.seek(4 << 30)
        assert file.read() == b"end!!"
    # The second comes out of the state of the first, with nothing read.
    assert differences(files, round_trip(installation, files, 1)) == []


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="not run: devices and foreign owners need root")
def test_what_only_root_can_make_comes_back_as_it_was(installation: Installation) -> None:
    files = installation.home / "of-root"
    make_what_root_may(os.fsencode(files))
    assert differences(files, round_trip(installation, files, 2)) == []


def test_edits_that_keep_size_and_time_are_seen(installation: Installation) -> None:
    files = installation.home / "edited"
    for folder in ("one", "two"):
        (files / folder).mkdir(parents=True)
        for number in range(300):
            path = files / folder / f"file{number}"
            path.write_bytes(b"before %d" % number)
            os.utime(path, ns=(SECOND, SECOND))
    big = files / "big"
    big.write_bytes(random.Random(1).randbytes(400_000))
    os.utime(big, ns=(SECOND, SECOND))
    assert differences(files, round_trip(installation, files, 3)) == []
    (files / "one" / "file7").write_bytes(b"behind 7")
    with big.open("r+b") as file:
        file.seek(1000)
        file.write(b"behind")
    for path in (files / "one" / "file7", big):
        os.utime(path, ns=(SECOND, SECOND))
    (files / "one" / "file8").unlink()
    (files / "one" / "file8").mkdir()
    (files / "two" / "file9").unlink()
    (files / "two" / "file9").symlink_to("file1")
    assert differences(files, round_trip(installation, files, 4)) == []
    (files / "one").rename(files / "between")
    (files / "two").rename(files / "one")
    (files / "between").rename(files / "two")
    assert differences(files, round_trip(installation, files, 5)) == []


def test_in_place_only_what_differs_is_written(installation: Installation) -> None:
    files = installation.home / "in-place"
    (files / "sub").mkdir(parents=True)
    for number in range(50):
        (files / "sub" / f"file{number}").write_bytes(b"content %d" % number * 100)
    restored = round_trip(installation, files, 6)
    (files / "sub" / "file1").write_bytes(b"other")
    (files / "sub" / "file2").unlink()
    (files / "sub" / "mine").write_bytes(b"not in the restore point")
    kept = (files / "sub" / "file3").stat()
    machine = installation.must("stead", "machine", "ls", "--output", "json")
    name = machine.split('"name":')[1].split('"')[1]
    command = ("stead", "backup", "restore", name, "latest", str(files), "--in-place")
    plan = json.loads(installation.must(*command, "--dry-run", "--output", "json"))[0]
    assert (plan["create"], plan["overwrite"], plan["same"]) == (1, 1, 48)
    assert (files / "sub" / "file1").read_bytes() == b"other"
    done = json.loads(installation.must(*command, "--output", "json"))[0]
    assert (done["files"], done["same"]) == (2, 48)
    assert (files / "sub" / "file3").stat().st_ino == kept.st_ino
    assert (files / "sub" / "mine").read_bytes() == b"not in the restore point"
    (files / "sub" / "mine").unlink()
    os.utime(files / "sub", ns=(0, (restored / "sub").stat().st_mtime_ns))
    assert differences(restored, files) == []
