"""File systems that lie, or fail, must not cost content that nobody hears of."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from agent.backup.backed_up import BackupReport
from agent.backup.beneath import Beneath
from agent.backup.budget import Budget, TooLongError
from agent.backup.cut import read as reading
from agent.backup.restore import live as comparing
from agent.backup.restore.held import holds_pieces
from agent.backup.scan import rows as scanning
from agent.backup.select import walk as walking
from tests.unit.backup.machine import Machine
from tests.unit.backup.watched import WatchedMachine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    (made.files / "plain").write_text("plain")
    return made


def told(report: BackupReport) -> dict[str, str]:
    """What is missing, by its last name."""
    return {
        Path(os.fsdecode(one.path)).name: one.reason
        for one in report.skipped.kept
        if not one.by_rule
    }


def test_a_file_that_is_longer_than_its_size_says_is_read_to_its_end(machine: Machine) -> None:
    source = Path("/proc/version")
    if not source.exists() or source.stat().st_size:
        pytest.skip("not run: /proc/version is not here, or says how long it is")
    report = machine.back_up(source)
    assert report.is_complete
    restored, _ = machine.restore(report.root, b"proc/version")
    assert restored.read_bytes() == source.read_bytes()


class Listing:
    """A directory as it is listed, and a name beside that nobody can find."""

    def __init__(self, found: Any, ghost: str) -> None:
        self._found = found
        self._ghost = ghost

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._found.close()

    def __iter__(self) -> Iterator[Any]:
        yield from self._found
        yield self

    @property
    def name(self) -> str:
        return self._ghost

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@pytest.mark.parametrize("stays", [True, False])
def test_a_name_that_is_listed_and_cannot_be_found_is_missing_unless_it_is_gone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, *, stays: bool
) -> None:
    scandir: Callable[[Any], Any] = os.scandir
    listdir: Callable[[Any], Any] = os.listdir
    place = machine.files.stat().st_ino

    def is_here(what: object) -> bool:
        return isinstance(what, int) and os.fstat(what).st_ino == place

    monkeypatch.setattr(
        os,
        "scandir",
        lambda what: Listing(scandir(what), "ghost") if is_here(what) else scandir(what),
    )
    monkeypatch.setattr(
        os,
        "listdir",
        lambda what: [*listdir(what), *(["ghost"] if stays and is_here(what) else [])],
    )
    report = machine.back_up()
    assert told(report) == ({"ghost": "no such file or directory"} if stays else {})
    assert report.root.files == 1


@pytest.mark.parametrize("at_once", [2, 10_000])
def test_a_name_that_is_listed_twice_is_there_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    (machine.files / "sub").mkdir()
    (machine.files / "sub" / "file").write_text("x")
    scandir: Callable[[Any], Any] = os.scandir

    class Twice(Listing):
        def __iter__(self) -> Iterator[Any]:
            found = list(self._found)
            yield from [*found, *found]

    monkeypatch.setattr(walking, "SLICE", at_once)
    monkeypatch.setattr(os, "scandir", lambda what: Twice(scandir(what), ""))
    report = machine.back_up()
    monkeypatch.undo()
    assert report.is_complete
    assert report.root.files == 2
    restored, _ = machine.restore(report.root)
    assert (restored / "sub" / "file").read_text() == "x"


def test_a_file_that_is_there_and_cannot_be_opened_is_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = machine.files / "refused"
    refused.write_text("x")

    def open_file(directory: int, name: bytes) -> int:
        if name == b"refused":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return opened(directory, name)

    opened = reading.open_file
    for module in (reading, scanning, comparing):
        monkeypatch.setattr(module, "open_file", open_file)
    assert told(machine.back_up()) == {"refused": "no such file or directory"}


@pytest.fixture
def sparse(machine: Machine) -> Path:
    file = machine.files / "sparse"
    with file.open("wb") as made:
        made.truncate(3_000_000)
        made.seek(1_000_000)
        made.write(b"island" * 1000)
    return file


def seeking(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    lseek: Callable[[int, int, int], int] = os.lseek

    def refused(fd: int, place: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(number, os.strerror(number))
        return lseek(fd, place, whence)

    monkeypatch.setattr(os, "lseek", refused)


def test_where_nobody_can_say_where_data_is_there_is_no_hole(
    machine: Machine, sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeking(monkeypatch, errno.EIO)
    report = machine.back_up()
    assert told(report) == {"sparse": "input/output error"}
    with sparse.open("rb") as file, pytest.raises(OSError, match="Input/output error"):
        holds_pieces(file.fileno(), [3_000_000])


def test_a_volume_that_knows_no_holes_is_read_whole(
    machine: Machine, sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeking(monkeypatch, errno.EINVAL)
    report = machine.back_up()
    assert report.is_complete
    with sparse.open("rb") as file:
        assert not holds_pieces(file.fileno(), [3_000_000])
        assert holds_pieces(file.fileno(), [1_000_000])
    monkeypatch.undo()
    restored, _ = machine.restore(report.root)
    assert (restored / "sparse").read_bytes() == sparse.read_bytes()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_watched_run_tells_of_a_folder_that_it_cannot_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    machine = WatchedMachine(tmp_path / "machine")
    try:
        (machine.files / "sub/deep").mkdir(parents=True)
        (machine.files / "sub/deep/file").write_text("kept")
        machine.run()
        (machine.files / "sub/deep/file").write_text("changed")
        (machine.files / "sub/deep/new").mkdir()
        below = bytes(machine.files / "sub")[1:]
        opened = Beneath.open

        def refused(self: Beneath, path: bytes) -> int:
            if path == below or path.startswith(below + b"/"):
                raise OSError(number, os.strerror(number))
            return opened(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(Beneath, "open", refused)
            report = machine.run()
        assert report.detector == "watch"
        assert set(told(report).values()) == {os.strerror(number).lower()}
        report = machine.run()
        assert report.is_complete
        restored, _ = machine.restore(report.root)
        assert (restored / "sub/deep/file").read_text() == "changed"
    finally:
        machine.stop()


@pytest.fixture
def roomy(machine: Machine) -> Path:
    """A folder of a volume on which files can be as long as numbers go."""
    file = machine.files / "long"
    with file.open("wb") as made:
        try:
            made.truncate((1 << 63) - 1)
        except OSError:
            pytest.skip("not run: files of 8 EiB need tmpfs or xfs below the temporary directory")
    file.unlink()
    return machine.files


def test_files_that_say_more_than_can_be_counted_cost_nothing_but_themselves(
    machine: Machine, roomy: Path
) -> None:
    sizes = {"0whole": (1 << 63) - 1, "1half": 1 << 62, "2most": 1 << 50, "zmore": (1 << 50) + 4097}
    for name, size in sizes.items():
        with (roomy / name).open("wb") as made:
            made.truncate(size)
    report = machine.back_up()
    assert set(told(report)) == {"0whole", "1half", "zmore"}
    assert report.root.bytes == (1 << 50) + 5
    assert set(told(machine.back_up())) == {"0whole", "1half", "zmore"}


def stat_of(size: int, held: int) -> os.stat_result:
    """What a system says of a file with so many bytes, of which so many take room."""
    return os.stat_result((0o100644, 1, 1, 1, 0, 0, size, 0, 0, 0), {"st_blocks": held // 512})


def test_holes_and_names_are_counted_together_and_what_takes_room_is_not() -> None:
    budget = Budget()
    hole, dense = stat_of(1 << 50, 0), stat_of(1 << 62, 1 << 62)
    for _ in range(1023):
        budget.take(hole)
    budget.take(stat_of(1 << 49, 1 << 49), again=True)
    with pytest.raises(TooLongError, match="takes no room"):
        budget.take(hole)
    with pytest.raises(TooLongError):
        budget.take(stat_of((1 << 49) + 1, (1 << 49) + 512), again=True)
    for _ in range(3):
        budget.take(dense)
        budget.take(stat_of(5, 4096))


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a volume whose files may have megabytes of attributes."""
    place = Path("/dev/shm")
    if not place.is_dir():
        pytest.skip("not run: there is no /dev/shm")
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_thing_with_megabytes_of_attributes_keeps_what_fits_and_ends_no_backup(
    machine: Machine, in_memory: Path, *, is_folder: bool
) -> None:
    heavy = in_memory / "heavy"
    heavy.mkdir() if is_folder else heavy.write_text("content")
    try:
        for number in range(100):
            os.setxattr(heavy, f"user.a{number:02}", bytes([number]) * 60_000)
    except OSError:
        pytest.skip("not run: /dev/shm takes no attributes, or few")
    if is_folder:
        (heavy / "inside").write_text("content")
    report = machine.back_up(machine.files, in_memory)
    assert told(report) == {"heavy": "48 of its attributes: 1024 are kept, of 3 MiB together"}
    restored, _ = machine.restore(report.root, bytes(in_memory).lstrip(b"/"))
    there = restored / "heavy" / "inside" if is_folder else restored / "heavy"
    assert there.read_text() == "content"


def test_attributes_that_are_listed_twice_are_there_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(machine.files / "plain", "user.one", b"1")
    listed: Callable[..., list[str]] = os.listxattr
    monkeypatch.setattr(os, "listxattr", lambda *what, **how: 2 * listed(*what, **how))
    report = machine.back_up()
    monkeypatch.undo()
    assert report.is_complete
    restored, _ = machine.restore(report.root)
    assert os.getxattr(restored / "plain", "user.one") == b"1"


def test_an_owner_whose_name_is_no_text_is_known_by_the_number(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"J\xf6rg")
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: pwd.struct_passwd((name, *user[1:2], uid, *user[3:]))
    )
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, group[3])))
    report = machine.back_up()
    monkeypatch.undo()
    assert report.is_complete
    restored, _ = machine.restore(report.root)
    assert restored.stat().st_uid == os.getuid()


def test_a_link_that_leads_nowhere_at_all_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.files / "link").symlink_to("somewhere")
    monkeypatch.setattr(os, "readlink", lambda *_what, **_how: b"")
    report = machine.back_up()
    assert "link" in told(report)
    assert report.root.files == 1
