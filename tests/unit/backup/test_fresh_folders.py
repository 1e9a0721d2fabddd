"""New folders are filled under a temporary name: what can go wrong meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from agent.backup.restore import fresh
from agent.backup.restore.fetch import Fetcher
from agent.backup.restore.fresh import FreshFolder
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture

Settle = Callable[..., int]

LETS_DAEMON_IN = pack("<I", 2) + b"".join(
    pack("<HHI", tag, rights, who)
    for tag, rights, who in [
        (0x01, 7, 0xFFFFFFFF), (0x02, 7, 1), (0x04, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF),
        (0x20, 5, 0xFFFFFFFF),
    ]
)  # fmt: skip
"""user::rwx, user:1:rwx, group::r-x, mask::rwx, other::r-x as linux/posix_acl_xattr.h has it."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    chance = random.Random(4)
    for folder in ("sub", "sub/below", "sub/empty"):
        (made.files / folder).mkdir()
    for number in range(20):
        (made.files / "sub" / f"file{number:02}").write_bytes(chance.randbytes(2_000))
        (made.files / "sub" / "below" / f"file{number:02}").write_bytes(chance.randbytes(100))
    os.link(made.files / "sub" / "file03", made.files / "sub" / "same")
    (made.files / "sub" / "link").symlink_to("file01")
    (made.files / "sub" / "file05").chmod(0o4711)
    (made.files / "sub" / "below").chmod(0o2750)
    return made


def before_settling(
    monkeypatch: pytest.MonkeyPatch, name: bytes, act: Callable[[], object]
) -> None:
    """Do something just before the folder `name` gets its name, once."""
    settle: Settle = FreshFolder.settle
    acted: list[bytes] = []

    def first(self: FreshFolder, *args: Any, **options: Any) -> int:
        if self._name == name and not acted:
            acted.append(name)
            act()
        return settle(self, *args, **options)

    monkeypatch.setattr(FreshFolder, "settle", first)


def nothing_left(target: Path) -> bool:
    return not list(target.rglob(".stead-restore-*"))


@pytest.mark.parametrize("most", [("MOST_FILES", 7), ("MOST_BYTES", 9_000), ("LARGEST", 1_000)])
def test_a_folder_gets_its_name_when_it_has_no_more_room(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, most: tuple[str, int]
) -> None:
    report = machine.back_up()
    monkeypatch.setattr(fresh, *most)
    restored, done = machine.restore(report.root)
    assert (done.failed.count, done.warnings.count) == (0, 0)
    assert picture(restored) == picture(machine.files)
    assert nothing_left(restored.parent)


def test_what_is_in_a_folder_can_be_seen_all_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    seen: list[bool] = []
    place = target / "files" / "sub" / "below"
    before_settling(monkeypatch, b"below", lambda: seen.append(place.exists()))
    machine.restore(report.root, target=target)
    assert seen == [False]
    assert len(list(place.iterdir())) == 20


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_somebody_puts_there_meanwhile_is_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    place = target / "files" / "sub"

    def somebody() -> None:
        place.mkdir(0o755, exist_ok=True)
        (place / "file03").write_bytes(b"mine")
        (place / "other").write_bytes(b"mine too")

    before_settling(monkeypatch, b"sub", somebody)
    restored, done = machine.restore(report.root, target=target, overwrite=overwrite)
    found, wanted = picture(restored), picture(machine.files)
    assert found.pop(b"/sub/other")["content"] == b"mine too"
    assert nothing_left(target)
    assert not (place / "link").is_file() or (place / "link").is_symlink()
    if overwrite:
        assert done.failed.count == 0
        assert found == wanted
        return
    assert [one.path for one in done.failed.kept] == [b"files/sub/file03"]
    assert found.pop(b"/sub/file03")["content"] == b"mine"
    assert (done.files, done.bytes) == (40, 19 * 2_000 + 20 * 100)
    # Its other name was a link to ours, whose content it has.
    assert found[b"/sub/same"]["content"] == wanted[b"/sub/file03"]["content"]
    for name in (b"/sub/file05", b"/sub/below", b"/sub/below/file07", b"/sub/link"):
        assert found[name] == wanted[name]


def test_what_comes_into_a_folder_that_was_made_already_is_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    mine = target / "files" / "mine"
    before_settling(monkeypatch, b"files", lambda: mine.write_bytes(b"mine"))
    restored, done = machine.restore(report.root, target=target)
    assert done.failed.count == 0
    found = picture(restored)
    assert found.pop(b"/mine")["content"] == b"mine"
    assert found == picture(machine.files)
    assert nothing_left(target)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: a foreign group needs root")
def test_files_get_their_own_group_below_a_folder_that_passes_its_group_on(
    machine: Machine,
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    target.mkdir()
    os.chown(target, 0, 3)
    target.chmod(0o2775)
    restored, done = machine.restore(report.root, target=target)
    assert (done.failed.count, done.warnings.count) == (0, 0)
    assert picture(restored) == picture(machine.files)


@pytest.mark.parametrize("is_new", [True, False], ids=["new folders", "folders that are there"])
def test_nothing_gets_an_acl_that_a_folder_passes_on(machine: Machine, *, is_new: bool) -> None:
    os.mkfifo(machine.files / "pipe", 0o640)
    (machine.files / "sub" / "secret").write_bytes(b"secret")
    (machine.files / "sub" / "secret").chmod(0o640)
    report = machine.back_up()
    target = machine.home / "target"
    folders = [target] if is_new else [target / "files" / name for name in ("", "sub", "sub/below")]
    for folder in folders:
        folder.mkdir(parents=True)
        os.setxattr(folder, "system.posix_acl_default", LETS_DAEMON_IN)
    restored, done = machine.restore(report.root, target=target, overwrite=True)
    assert (done.failed.count, done.warnings.count) == (0, 0)
    assert picture(restored) == picture(machine.files)


def test_a_file_that_takes_the_name_of_a_folder_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    place = target / "files" / "sub" / "below"
    before_settling(monkeypatch, b"below", lambda: place.write_bytes(b"mine"))
    _, done = machine.restore(report.root, target=target)
    assert place.read_bytes() == b"mine"
    assert done.files == 21
    assert done.failed.count == 20
    assert nothing_left(target)


def test_a_folder_that_somebody_made_first_keeps_its_mode(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    place = target / "files" / "sub" / "below"
    before_settling(monkeypatch, b"below", lambda: place.mkdir(0o711))
    _, done = machine.restore(report.root, target=target)
    assert place.stat().st_mode & 0o7777 == 0o711
    assert len(list(place.iterdir())) == 20
    assert [one.path for one in done.warnings.kept] == [b"files/sub/below"]
    assert done.failed.count == 0


def test_a_folder_of_a_restore_that_was_killed_is_removed(machine: Machine) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    left = target / "files" / ".stead-restore-4194305-77-7"
    left.mkdir(parents=True)
    (left / "file01").write_bytes(b"half of it")
    (left / "link").symlink_to("/etc")
    restored, done = machine.restore(report.root, target=target)
    assert done.failed.count == 0
    assert nothing_left(target)
    assert picture(restored / "sub") == picture(machine.files / "sub")
    assert Path("/etc").exists()


def test_nothing_has_a_temporary_name_while_more_content_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    seen: list[bool] = []
    plain = Fetcher.plain

    def looked(self: Fetcher, *args: Any) -> Any:
        seen.append(nothing_left(target))
        return plain(self, *args)

    monkeypatch.setattr(Fetcher, "plain", looked)
    monkeypatch.setattr("agent.backup.restore.write.WINDOW_ITEMS", 8)
    restored, _ = machine.restore(report.root, target=target)
    assert len(seen) > 5
    assert all(seen)
    assert picture(restored) == picture(machine.files)
