"""Who owns what is restored, its times, modes and flags."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.backup.restore.belonging import Owners
from agent.metadata.posix_flags import IMMUTABLE, read_flags, write_flags
from tests.unit.backup.machine import Machine
from tests.unit.backup.test_restore import machine
from tests.unit.backup.trees import picture

__all__ = ["machine"]


def test_times_that_no_64_bits_can_hold_survive(machine: Machine) -> None:
    far = 15_000_000_000 * 10**9
    for name in ("inline", "streamed", "big"):
        path = machine.files / name
        path.write_bytes(b"x" * {"inline": 1, "streamed": 9_000, "big": 700_000}[name])
        os.utime(path, ns=(far, far))
    (machine.files / "folder").mkdir()
    os.utime(machine.files / "folder", ns=(far, far))
    if (machine.files / "big").stat().st_mtime_ns != far:
        pytest.skip("not run: this file system keeps no times that far away")
    for _ in range(2):
        report = machine.back_up()
        assert report.is_complete
        target, _ = machine.restore(report.root)
        for name in ("inline", "streamed", "big", "folder"):
            assert (target / name).stat().st_mtime_ns == far


def test_what_cannot_get_its_owner_gets_no_right_to_act_as_another(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.files / "tool").write_bytes(b"x")
    (machine.files / "tool").chmod(0o6755)
    os.mkfifo(machine.files / "pipe")
    report = machine.back_up()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chown", refuse)
    restored, done = machine.restore(report.root)
    assert (restored / "tool").stat().st_mode & 0o7777 == 0o755
    assert (restored / "pipe").is_fifo()
    assert not done.failed.count


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: becoming an ordinary user needs root")
def test_an_ordinary_user_gets_the_attributes_of_what_he_may_not_write(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from agent.backup.restore.belonging import Belonging, Owners
        from agent.backup.restore.placer import Placer
        from protocol.vault.entry import Entry, Owner
        os.setgid(65534); os.setuid(65534)
        owner = Owner(65534, 65534, "", "")
        entry = Entry(b"f", 0o100444, owner, 1, 1, (), b"x", xattrs=((b"user.a", b"1"),))
        belonging = Belonging(Owners.NUMBER)
        options = dict(overwrite=False, flags=False, content_of=lambda _: ())
        with Placer(os.fsencode(sys.argv[1]), belonging, **options) as placer:
            file = placer.create(b"", entry)
            assert file is not None and placer.write(file, [b"x"])
            placer.close(file)
        assert placer.done.warnings.count == 0, placer.done.warnings
    """
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o5 != 0o5:
            parent.chmod(parent.stat().st_mode | 0o5)
    subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=True, cwd=Path(__file__).parents[3]
    )
    assert os.getxattr(tmp_path / "f", "user.a") == b"1"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: foreign owners need root")
def test_owners_go_by_name_before_number(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(machine.files / "small", 2, 3)
    (machine.files / "small").chmod(0o4755)
    names = {"bin": 1_202, "sys": 1_303}
    monkeypatch.setattr(
        "agent.backup.owners.pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="bin")
    )
    monkeypatch.setattr(
        "agent.backup.owners.grp.getgrgid", lambda gid: SimpleNamespace(gr_name="sys")
    )
    report = machine.back_up()
    monkeypatch.setattr(
        "agent.backup.restore.belonging.pwd.getpwnam",
        lambda name: SimpleNamespace(pw_uid=names[name]),
    )
    monkeypatch.setattr(
        "agent.backup.restore.belonging.grp.getgrnam",
        lambda name: SimpleNamespace(gr_gid=names[name]),
    )
    for owners, expected, mode in (
        (Owners.NAME, (1_202, 1_303), 0o4755),
        (Owners.NUMBER, (2, 3), 0o4755),
        (Owners.NONE, (os.geteuid(), os.getegid()), 0o755),
    ):
        restored, _ = machine.restore(report.root, owners=owners)
        found = (restored / "small").stat()
        assert (found.st_uid, found.st_gid) == expected
        assert found.st_mode & 0o7777 == mode
        _, done = machine.restore(
            report.root, target=restored.parent, overwrite=True, owners=owners
        )
        assert (done.files, done.same) == (0, 62)
    names.clear()
    restored, _ = machine.restore(report.root)
    assert (restored / "small").stat().st_uid == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: flags need root")
def test_flags_are_set_last_and_give_way_to_a_restore_in_place(machine: Machine) -> None:
    held = [machine.files / "small", machine.files / "sub" / "file03", machine.files / "sub"]
    targets = []
    try:
        for path in held:
            change_flags(path, IMMUTABLE)
        if not all(flags_at(path) == IMMUTABLE for path in held):
            pytest.skip("not run: this file system has no flags")
        report = machine.back_up()
        restored, done = machine.restore(report.root, flags=True)
        targets = [restored / path.relative_to(machine.files) for path in held]
        assert done.failed.count == 0
        assert [flags_at(path) for path in targets] == [IMMUTABLE] * 3
        change_flags(targets[0], 0)
        targets[0].write_bytes(b"other")
        change_flags(targets[0], IMMUTABLE)
        _, refused = machine.restore(report.root, target=restored.parent, overwrite=True)
        assert [one.path for one in refused.failed.kept] == [b"files/small"]
        _, done = machine.restore(report.root, target=restored.parent, overwrite=True, flags=True)
        assert (done.failed.count, done.files) == (0, 1)
        assert [flags_at(path) for path in targets] == [IMMUTABLE] * 3
        assert picture(restored) == picture(machine.files)
    finally:
        for path in [*held, *targets]:
            change_flags(path, 0)


def flags_at(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_flags(fd)
    finally:
        os.close(fd)


def change_flags(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            write_flags(fd, flags)
    finally:
        os.close(fd)
