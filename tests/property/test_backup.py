"""What a backup and a restore keep, whatever the tree."""

# ruff: noqa: PTH101, PTH102, PTH108, PTH112, PTH114, PTH118, PTH123, PTH211
from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.backup.tree.place import Memory
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture

ROOT = os.geteuid() == 0
NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"a.b", b"\xff\xfe", b"new\nline", b"\xc3\xa9", b"-", b" "]),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    ),
)
SIZES = st.one_of(
    st.integers(0, 3_000),
    st.sampled_from([1_024, 1_025, 65_536, 262_143, 262_144, 300_000, 1_500_000]),
)
TIMES = st.integers(0, 2**33 * 1_000_000_000)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2640, 0o400, 0o1777, 0o000])
IDS = st.sampled_from([0, 1, 1000, 65_534]) if ROOT else st.just(os.geteuid())
ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.note", b"user.\xc3\xa9"]), st.binary(max_size=200), max_size=2
)
THINGS = st.one_of(
    st.tuples(st.just("file"), SIZES, st.integers(0, 3)),
    st.tuples(st.just("sparse"), st.integers(1, 40), st.integers(0, 3)),
    st.tuples(st.just("link"), NAMES),
    st.tuples(st.just("hard"), st.integers(0, 50)),
    st.tuples(st.just("pipe")),
    st.tuples(st.just("socket")),
    st.tuples(st.just("device")),
    st.tuples(st.just("directory")),
)
PLAN = st.lists(
    st.tuples(st.integers(0, 8), NAMES, THINGS, MODES, IDS, TIMES, ATTRIBUTES), max_size=14
)


def content(size: int, kind: int) -> bytes:
    if kind == 0:
        return bytes(size)
    if kind == 1:
        return (b"the same line over and over\n" * (size // 28 + 1))[:size]
    return os.urandom(size)


def build(top: Path, plan: list[Any]) -> None:
    """Make what the plan says as far as it is possible; what exists is replaced or kept."""
    directories = [os.fsencode(top)]
    directories += [
        os.path.join(where, name)
        for where, names, _ in os.walk(os.fsencode(top))
        for name in names
        if not os.path.islink(os.path.join(where, name))
    ]
    files = [
        os.path.join(where, name) for where, _, names in os.walk(os.fsencode(top)) for name in names
    ]
    stamps: list[tuple[bytes, int]] = []
    for place, name, thing, mode, owner, time, attributes in plan:
        path = directories[place % len(directories)] + b"/" + name
        kind = thing[0]
        if os.path.lexists(path):
            if os.path.isdir(path) and not os.path.islink(path):
                continue
            os.unlink(path)
        if kind == "file":
            Path(os.fsdecode(path)).write_bytes(content(thing[1], thing[2]))
        elif kind == "sparse":
            with open(path, "wb") as file:
                file.truncate(thing[1] * 65_536)
                file.seek(thing[1] // 2 * 65_536)
                file.write(content(5_000, thing[2]))
        elif kind == "link":
            os.symlink(thing[1], path)
        elif kind == "hard":
            linkable = [
                one
                for one in files
                if os.path.lexists(one) and (os.path.islink(one) or not os.path.isdir(one))
            ]
            if not linkable:
                continue
            os.link(linkable[thing[1] % len(linkable)], path, follow_symlinks=False)
            files.append(path)
            continue
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            if len(path) > 100:
                continue
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
        elif kind == "device":
            if not ROOT:
                continue
            os.mknod(path, 0o020600, os.makedev(1, 3))
        else:
            os.mkdir(path)
            directories.append(path)
            mode |= 0o700
        os.chown(path, owner, -1, follow_symlinks=False)
        if kind != "link":
            if kind in ("file", "sparse", "directory"):
                for key, value in attributes.items():
                    os.setxattr(path, key, value)
            os.chmod(path, mode)
        stamps.append((path, time))
        if kind != "directory":
            files.append(path)
    for path, time in stamps:
        if os.path.lexists(path):
            os.utime(path, ns=(time, time), follow_symlinks=False)


def remove_some(top: Path, picks: list[int]) -> None:
    files = sorted(
        os.path.join(where, name) for where, _, names in os.walk(os.fsencode(top)) for name in names
    )
    for pick in picks:
        if files:
            os.unlink(files.pop(pick % len(files)))


QUICK = settings(
    max_examples=int(os.environ.get("STEAD_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(plan=PLAN)
def test_what_was_backed_up_is_restored_identical(plan: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        machine = Machine(Path(home))
        build(machine.files, plan)
        report = machine.back_up()
        restored, done = machine.restore(report.root)
        assert done.failed.kept == []
        assert picture(restored) == picture(machine.files)


@QUICK
@given(first=PLAN, second=PLAN, removed=st.lists(st.integers(0, 50), max_size=5))
def test_a_second_backup_restores_what_a_full_one_would(
    first: list[Any], second: list[Any], removed: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as home:
        machine = Machine(Path(home))
        build(machine.files, first)
        machine.back_up()
        remove_some(machine.files, removed)
        build(machine.files, second)
        report = machine.back_up()
        fresh = Machine(Path(home), machine.vault)
        fresh.memory = Memory(Path(home) / "other")
        full = fresh.back_up()
        assert (full.root.entries, full.root.files, full.root.bytes) == (
            report.root.entries,
            report.root.files,
            report.root.bytes,
        )
        restored, done = machine.restore(report.root)
        assert done.failed.kept == []
        assert picture(restored) == picture(machine.files)
