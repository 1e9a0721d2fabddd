"""What rules leave out is not in the restore point, and is counted under its rule."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from agent.backup.backed_up import BackupReport
from agent.backup.run import Backup
from agent.backup.select.choose import CACHE, LARGER, NEWER, OLDER, SMALLER, Choice, hash_of
from agent.backup.select.defaults import SYSTEMS, default_rules
from agent.backup.select.exclude import Exclusion
from agent.backup.select.rule import read_rules
from agent.backup.select.walk import Walk
from agent.backup.skipped import SkippedList
from protocol.selection import Rules
from protocol.vault.chunk import Opener
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine

TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for name in ("src/a.c", "src/a.o", "build/out/b.o", "build/keep.txt", "cache/x", "big", "old"):
        path = made.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (made.files / "cache/CACHEDIR.TAG").write_bytes(TAG)
    (made.files / "big").write_bytes(bytes(5_000))
    os.utime(made.files / "old", (1, 1))
    return made


def back_up(machine: Machine, rules: Rules) -> BackupReport:
    return Backup(
        [bytes(machine.files)],
        who=WHO,
        vault=machine.vault,
        memory=machine.memory,
        seed=random.Random(7),
        progress=machine.said.append,
        racy_ns=0,
        rules=rules,
    ).run()


def paths_in(machine: Machine, report: BackupReport) -> set[str]:
    top = bytes(machine.files).lstrip(b"/")
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    return {
        (parent + b"/" + entry.name)[len(top) + 1 :].decode(errors="backslashreplace")
        for parent, entry in reader.below(report.root, top)
    }


def left_out(report: BackupReport) -> dict[str, tuple[int, int]]:
    return {one["rule"]: (one["entries"], one["bytes"]) for one in report.left_out}


ALL = {
    "src", "src/a.c", "src/a.o", "build", "build/out", "build/out/b.o", "build/keep.txt",
    "cache", "cache/x", "cache/CACHEDIR.TAG", "big", "old",
}  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "gone", "counted"),
    [
        (Rules(), set(), {}),
        (Rules((b"*.o",)), {"src/a.o", "build/out/b.o"}, {"*.o": (2, 20)}),
        (Rules((b"*.o", b"!b.o")), {"src/a.o"}, {"*.o": (1, 7)}),
        (Rules((b"out/",)), {"build/out", "build/out/b.o"}, {"out/": (1, 0)}),
        (Rules((b"out/", b"!b.o")), {"build/out", "build/out/b.o"}, {"out/": (1, 0)}),
        (Rules(exclude_caches=True), {"cache/x"}, {CACHE: (1, 7)}),
        (Rules(larger_than=4_000), {"big"}, {LARGER: (1, 5_000)}),
        (Rules(smaller_than=4), {"old"}, {SMALLER: (1, 3)}),
        (Rules(older_than_s=86_400), {"old"}, {OLDER: (1, 3)}),
    ],
)
def test_rules_leave_out_what_they_say(
    machine: Machine, rules: Rules, gone: set[str], counted: dict[str, tuple[int, int]]
) -> None:
    for _ in range(2):
        report = back_up(machine, rules)
        assert paths_in(machine, report) == ALL - gone
        assert left_out(report) == counted
        assert report.is_complete
        assert report.skipped.count == 0


def test_what_changed_lately_can_be_left_out(machine: Machine) -> None:
    report = back_up(machine, Rules(newer_than_s=3_600))
    files = {path for path in paths_in(machine, report) if (machine.files / path).is_file()}
    assert files == {"old"}
    assert left_out(report)[NEWER][0] == 7


def test_other_rules_mean_that_everything_is_looked_at_again(machine: Machine) -> None:
    everything = Rules(no_defaults=True)
    back_up(machine, everything)
    time.sleep(0.02)
    back_up(machine, everything)
    assert back_up(machine, everything).counts.read_files == 0
    without = back_up(machine, Rules((b"*.o",)))
    assert without.counts.read_files == len(ALL - {"src/a.o", "build/out/b.o"}) - 4
    assert paths_in(machine, back_up(machine, everything)) == ALL


def test_what_is_left_out_is_not_entered(machine: Machine) -> None:
    (machine.files / "src" / "deep").mkdir()
    entered = []
    choice = Choice(Rules((b"src/",)), now_ns=0)
    walk = Walk([bytes(machine.files).lstrip(b"/")], SkippedList(), choice=choice)
    for listing in walk:
        entered.append(listing.parent.rpartition(b"/")[2])
        os.close(listing.fd)
    assert b"build" in entered
    assert b"src" not in entered


def test_names_that_are_no_text_are_left_out_by_rules_that_are_none(machine: Machine) -> None:
    (machine.files / os.fsdecode(b"\xff.tmp")).touch()
    (machine.files / os.fsdecode(b"\xfe.tmp")).touch()
    report = back_up(machine, Rules((b"\xff*",)))
    assert paths_in(machine, report) - ALL == {"\\xfe.tmp"}


def test_a_large_directory_is_chosen_from_like_others(machine: Machine) -> None:
    many = machine.files / "many"
    many.mkdir()
    for number in range(4_200):
        (many / f"{number:04}.{'o' if number % 2 else 'c'}").touch()
    report = back_up(machine, Rules((b"/**/many/*.o",)))
    assert left_out(report) == {"/**/many/*.o": (2_100, 0)}


def test_a_named_path_is_taken_although_a_rule_fits_it(machine: Machine) -> None:
    top = bytes(machine.files)
    report = back_up(machine, Rules((top, top + b"/src")))
    assert {path for path in ALL if not path.startswith("src")} == paths_in(machine, report)


def test_a_file_that_only_looks_like_a_tag_is_none(machine: Machine) -> None:
    (machine.files / "cache/CACHEDIR.TAG").write_bytes(b"not one")
    assert paths_in(machine, back_up(machine, Rules(exclude_caches=True))) == ALL


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_has_rules_that_can_be_read(system: str) -> None:
    assert len(read_rules(default_rules(system))) == len(default_rules(system))


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        (b"proc/1", True),
        (b"home/ann/.cache/x", True),
        (b"swapfile", True),
        (b"var/cache/apt/archives/x.deb", True),
        (b"proc", False),
        (b"home/ann/.cache", False),
        (b"srv/proc/1", False),
        (b"srv/tmp/x", False),
        (b"etc/passwd", False),
        (b"var/lib/dpkg/status", False),
    ],
)
def test_on_linux_what_the_system_makes_again_is_left_out(path: bytes, is_left_out: bool) -> None:
    place = Exclusion(read_rules(default_rules("linux"))).top
    *parents, _ = path.split(b"/")
    for name in parents:
        place = place.below(name)
    assert (place.rule_of(path, is_directory=False) is not None) == is_left_out


def test_each_rule_is_in_the_hash() -> None:
    hashes = {
        hash_of(rules)
        for rules in (
            Rules(),
            Rules(no_defaults=True),
            Rules((b"a",)),
            Rules((b"a", b"b")),
            Rules((b"b", b"a")),
            Rules(exclude_caches=True),
            Rules(one_file_system=True),
            Rules(larger_than=1),
            Rules(smaller_than=1),
            Rules(older_than_s=1),
            Rules(newer_than_s=1),
        )
    }
    assert len(hashes) == 11
