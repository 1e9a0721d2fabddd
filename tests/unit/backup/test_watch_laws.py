"""Whatever happens to the files, a watch run makes the tree of a full walk, or walks."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.backup.trees import picture
from tests.unit.backup.watched import WatchedMachine

NAMES = st.sampled_from(["a", "b", "c", "a\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
CONTENT = st.binary(max_size=400)


class Files(RuleBasedStateMachine):
    """Random changes to a real directory, real events, and the runs between them."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="watched"))
        self.machine = WatchedMachine(self.home)
        for number in range(3):
            (self.machine.files / "abc"[number] / "a" / "b").mkdir(parents=True)
            (self.machine.files / "abc"[number] / "a" / "c").write_bytes(b"%d" % number)
        self.machine.run()
        self.open: list[int] = []
        self.lost = False

    def teardown(self) -> None:
        for fd in self.open:
            os.close(fd)
        self.machine.stop()
        shutil.rmtree(self.home)

    def at(self, path: str) -> Path:
        return self.machine.files / path

    @rule(path=PATHS, content=CONTENT)
    def write(self, path: str, content: bytes) -> None:
        place = self.at(path)
        if place.parent.is_dir() and not place.is_dir():
            place.write_bytes(content)

    @rule(path=PATHS)
    def make(self, path: str) -> None:
        place = self.at(path)
        if not any(one.is_file() for one in (place, *place.parents)):
            place.mkdir(parents=True, exist_ok=True)

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        place = self.at(path)
        if place.is_dir():
            shutil.rmtree(place)
        elif os.path.lexists(place):
            place.unlink()

    @rule(source=PATHS, other=PATHS)
    def move(self, source: str, other: str) -> None:
        one, place = self.at(source), self.at(other)
        if os.path.lexists(one) and place.parent.is_dir() and not other.startswith(source):
            if place.is_dir():
                shutil.rmtree(place)
            if not os.path.lexists(place) and os.path.lexists(one):
                one.rename(place)

    @rule(source=PATHS, other=PATHS)
    def link(self, source: str, other: str) -> None:
        one, place = self.at(source), self.at(other)
        if one.is_file() and place.parent.is_dir() and not os.path.lexists(place):
            place.hardlink_to(one)

    @rule(path=PATHS, mode=st.sampled_from([0o700, 0o755, 0o644]))
    def protect(self, path: str, mode: int) -> None:
        if os.path.lexists(self.at(path)):
            self.at(path).chmod(mode)

    @rule(path=PATHS)
    def keep_open(self, path: str) -> None:
        if self.at(path).is_file() and len(self.open) < 4:
            self.open.append(os.open(self.at(path), os.O_WRONLY | os.O_APPEND))

    @precondition(lambda self: self.open)
    @rule(content=CONTENT)
    def write_to_open(self, content: bytes) -> None:
        os.write(self.open[0], content)

    @rule()
    def swap_top(self) -> None:
        aside = self.home / "aside"
        self.machine.files.rename(aside)
        shutil.copytree(aside, self.machine.files, symlinks=True)
        shutil.rmtree(aside)

    @rule()
    def run_that_fails(self) -> None:
        self.machine.handed()

    @rule()
    def watcher_dies(self) -> None:
        self.machine.stop()
        self.machine.watcher = self.machine.start_watcher()
        self.lost = True

    @rule()
    def run(self) -> None:
        report = self.machine.run_beside_a_walk()
        if self.lost:
            assert report.detector.startswith("walk: ")
        self.lost = False
        restored, _ = self.machine.restore(report.root)
        assert picture(restored) == picture(self.machine.files)
        shutil.rmtree(restored.parent)


TestFiles = Files.TestCase
TestFiles.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    suppress_health_check=list(HealthCheck),
)


def test_a_handover_of_another_watcher_or_with_a_gap_is_not_believed(tmp_path: Path) -> None:
    machine = WatchedMachine(tmp_path)
    try:
        (machine.files / "a").write_bytes(b"a")
        machine.run()
        handed = machine.handed()
        for lie in ({"generation": "other"}, {"since": handed.number}, {"boot": "other"}):
            (machine.files / "a").write_bytes(repr(lie).encode())
            bad = msgspec.structs.replace(handed, directories=(), **lie)
            report = machine.run(bad)
            assert report.detector.startswith("walk: ")
            assert report.counts.read_files == 1
    finally:
        machine.stop()
