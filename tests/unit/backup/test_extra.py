"""What a restore that removes takes away, and all that it must leave."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.backed_up import BackupReport
from agent.backup.restore.bounds import Bounds, CannotTellError
from agent.backup.restore.extra import directories
from agent.backup.restore.leftover import temporary_names
from agent.backup.run import EVERYTHING
from protocol.errors import InvalidError
from protocol.selection import Rules
from protocol.vault.chunk import Opener
from protocol.vault.entry import Entry, Owner
from protocol.vault.node import Root
from protocol.vault.reader import Inner, TreeReader
from tests.unit.backup.machine import WHO, Machine
from tests.unit.backup.trees import picture

RULES = Rules(exclude=(b"*.log", b"cache/", b"/**/keep/*"), no_defaults=True)
OWNER = Owner(0, 0, "", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for name in ("empty", "full", "keep", "sub/below"):
        (made.files / name).mkdir(parents=True)
    for name in ("full/a", "full/b.log", "sub/below/c", "keep/k"):
        (made.files / name).write_bytes(name.encode())
    return made


def bounds_of(
    machine: Machine,
    rules: Rules = RULES,
    skipped: tuple[bytes, ...] = (),
    looked_at_ms: int = 0,
) -> Bounds:
    return Bounds((bytes(machine.files),), rules, skipped, looked_at_ms)


def look(probe: Path, last: Path) -> int:
    """A time of looking, in ms: after `last` was made, and not after what is made from now on."""
    made_at = last.stat().st_ctime_ns // 1_000_000
    while True:
        probe.write_bytes(b"")
        now = probe.stat().st_ctime_ns // 1_000_000
        if now > made_at:
            probe.unlink()
            return now


def names_below(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


def plant(top: Path) -> set[str]:
    """Things that the restore point does not have; the names of those that may go."""
    for name in ("empty", "full", "sub/below"):
        (top / name / "new/deep").mkdir(parents=True)
        (top / name / "new/deep/file").write_bytes(b"12345")
        (top / name / "link").symlink_to("/etc")
    os.mkfifo(top / "pipe")
    (top / "empty/mine.log").write_bytes(b"")
    (top / "full/new/x.log").write_bytes(b"")
    (top / "sub/cache/deep").mkdir(parents=True)
    (top / "sub/cache/deep/thing").write_bytes(b"")
    (top / "keep/other").mkdir()
    return {"pipe"} | {
        f"{name}/{one}"
        for name in ("empty", "full", "sub/below")
        for one in ("new", "new/deep", "new/deep/file", "link")
        if (name, one) != ("full", "new")
    }


def test_what_is_extra_goes_and_what_the_rules_leave_out_stays(machine: Machine) -> None:
    report = machine.back_up(rules=RULES)
    before = picture(machine.files)
    may_go = plant(machine.files)
    stays = names_below(machine.files) - may_go
    here = picture(machine.files)
    bounds = bounds_of(machine)
    seen = machine.restoring(report.root, machine.home, overwrite=True, bounds=bounds)
    seen.preview()
    assert picture(machine.files) == here
    _, done = machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
    assert {os.fsdecode(path).removeprefix("files/") for path in machine.removals.paths} == may_go
    assert names_below(machine.files) == stays
    assert (done.failed.count, machine.removals.count) == (0, len(may_go))
    assert seen.removals == machine.removals
    assert machine.removals.size == 15
    # Times of directories are put right after the removal.
    after = picture(machine.files)
    assert {name: after[name] for name in before if b"full/new" not in name} == before


def test_nothing_goes_when_nothing_is_to_be_removed(machine: Machine) -> None:
    report = machine.back_up(rules=RULES)
    plant(machine.files)
    here = names_below(machine.files)
    machine.restore(report.root, target=machine.home, overwrite=True)
    assert names_below(machine.files) == here


def test_what_came_or_changed_since_somebody_looked_stays(machine: Machine, tmp_path: Path) -> None:
    report = machine.back_up(rules=EVERYTHING)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "old").write_bytes(b"")
    (machine.files / "full/new/deep").mkdir(parents=True)
    (machine.files / "full/grown").mkdir()
    names = ("full/extra", "full/new/deep/extra", "full/grown/old", "full/written", "full/owned")
    for name in names:
        (machine.files / name).write_bytes(b"shown")
    at = look(tmp_path / "probe", machine.files / "full/owned")
    (machine.files / "full/later").write_bytes(b"")
    (machine.files / "full/grown/new").write_bytes(b"")
    (machine.files / "full/written").write_bytes(b"new")
    # Its own time can be set, that of its attributes cannot.
    os.utime(machine.files / "full/written", (1, 1))
    (machine.files / "full/owned").chmod(0o600)
    moved.rename(machine.files / "full/moved")
    (machine.files / "sub/folder/below").mkdir(parents=True)
    bounds = bounds_of(machine, EVERYTHING, looked_at_ms=at)
    machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
    gone = [os.fsdecode(path) for path in machine.removals.paths]
    assert gone == [f"files/full/{one}" for one in ("extra", "new/deep/extra", "new/deep", "new")]
    kept = {os.fsdecode(one.path): one.reason for one in machine.removals.kept.kept}
    stayed = ("full/grown", "full/later", "full/moved", "full/owned", "full/written", "sub/folder")
    assert set(kept) == {f"files/{one}" for one in stayed}
    assert all("restore again" in reason for reason in kept.values())
    assert (machine.files / "full/moved/old").exists()
    assert (machine.files / "full/grown/old").exists()
    # Whoever looks again sees them, and then they go.
    at = look(tmp_path / "probe", machine.files / "sub/folder")
    again = bounds_of(machine, EVERYTHING, looked_at_ms=at)
    machine.restore(report.root, target=machine.home, overwrite=True, bounds=again)
    assert machine.removals.count == 10
    assert not machine.removals.kept.count


def test_what_the_backup_could_not_read_stays_with_all_that_leads_to_it(machine: Machine) -> None:
    report = machine.back_up(rules=EVERYTHING)
    (machine.files / "new/unreadable").mkdir(parents=True)
    (machine.files / "new/unreadable/file").write_bytes(b"")
    (machine.files / "new/gone").write_bytes(b"")
    path = bytes(machine.files / "new/unreadable").lstrip(b"/")
    machine.restore(
        report.root,
        target=machine.home,
        overwrite=True,
        bounds=bounds_of(machine, EVERYTHING, (path,)),
    )
    assert machine.removals.paths == [b"files/new/gone"]
    assert (machine.files / "new/unreadable/file").exists()
    assert machine.removals.kept.kept[0].reason == "the backup could not read it"


def test_only_what_was_chosen_is_cleared(machine: Machine) -> None:
    report = machine.back_up(machine.files / "full", machine.files / "sub/below")
    (machine.files / "full/new").write_bytes(b"")
    (machine.files / "sub/new").write_bytes(b"")
    paths = tuple(bytes(machine.files / name) for name in ("full", "sub/below"))
    bounds = Bounds(paths, EVERYTHING, ())
    machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
    assert machine.removals.paths == [b"files/full/new"]
    assert (machine.files / "keep/k").exists()
    assert (machine.files / "sub/new").exists()


@pytest.mark.parametrize(
    "rules",
    [
        Rules(exclude_caches=True),
        Rules(one_file_system=True),
        Rules(larger_than=9),
        Rules(smaller_than=9),
        Rules(older_than_s=9),
        Rules(newer_than_s=9),
    ],
)
def test_rules_that_ask_more_than_names_refuse_it(rules: Rules) -> None:
    with pytest.raises(CannotTellError, match="without --delete-extra"):
        Bounds((b"/etc",), rules, ())


def tree_of_many_leaves(machine: Machine) -> tuple[BackupReport, Root]:
    """A restore point, and a node in the middle of its tree."""
    chance = random.Random(3)
    # A leaf ends where the hash of a path says so, every 512 names on average: so many names
    # end some leaf wherever the test's own directory is.
    for number in range(6000):
        (machine.files / "full" / f"{number:04}").write_bytes(chance.randbytes(400))
    report = machine.back_up(rules=EVERYTHING)
    found = list(leaves_of(TreeReader(Opener(WHO.secret), machine.vault.get), report.root))
    return report, found[len(found) // 2]


def leaves_of(reader: TreeReader, node: Root) -> Iterator[Root]:
    """The leaves below a node, in order. How many nodes lie above them depends on the paths."""
    opened = next(iter(reader.nodes([node])))[1]
    if not isinstance(opened, Inner):
        yield node
        return
    for item in opened.items:
        yield from leaves_of(reader, item.node)


def test_a_lost_leaf_is_not_taken_for_extras(machine: Machine) -> None:
    report, lost = tree_of_many_leaves(machine)
    del machine.vault.chunks[lost.reference.id]
    (machine.files / "full/new").touch()
    here = names_below(machine.files)
    bounds = bounds_of(machine, EVERYTHING)
    restore = machine.restoring(report.root, machine.home, overwrite=True, bounds=bounds)
    restore.run()
    assert names_below(machine.files) == here
    assert restore.removals.count == 0
    assert "nothing was removed" in restore.removals.failed.kept[0].reason


def test_nothing_goes_when_something_could_not_be_restored(machine: Machine) -> None:
    (machine.files / "full/lost").write_bytes(random.Random(3).randbytes(5_000))
    report = machine.back_up(rules=EVERYTHING)
    (machine.files / "full/lost").rename(machine.files / "full/its-new-name")
    for identity, stored in machine.vault.chunks.items():
        if stored[5] == 0:
            machine.vault.chunks[identity] = stored[:-1] + bytes([stored[-1] ^ 1])
    bounds = bounds_of(machine, EVERYTHING)
    restore = machine.restoring(report.root, machine.home, overwrite=True, bounds=bounds)
    restore.run()
    assert [one.path for one in restore.done.failed.kept] == [b"files/full/lost"]
    assert (machine.files / "full/its-new-name").exists()
    assert restore.removals.count == 0
    assert "1 thing could not be restored" in restore.removals.failed.kept[0].reason


def test_a_preview_removes_nothing_either_where_something_is_in_the_way(machine: Machine) -> None:
    report = machine.back_up(rules=EVERYTHING)
    (machine.files / "full/new").touch()
    (machine.files / "full/a").unlink()
    (machine.files / "full/a").mkdir()
    bounds = bounds_of(machine, EVERYTHING)
    for act in ("preview", "run"):
        restore = machine.restoring(report.root, machine.home, overwrite=True, bounds=bounds)
        getattr(restore, act)()
        assert (restore.removals.count, restore.done.failed.count) == (0, 1)
        assert "nothing was removed" in restore.removals.failed.kept[0].reason
    assert (machine.files / "full/new").exists()


def test_a_leaf_that_is_lost_in_between_ends_it(machine: Machine) -> None:
    report, lost = tree_of_many_leaves(machine)
    bounds = bounds_of(machine, EVERYTHING)
    restore = machine.restoring(report.root, machine.home, overwrite=True, bounds=bounds)
    remove = restore._remove_extras

    def lose_and_remove(*, act: bool) -> None:
        del machine.vault.chunks[lost.reference.id]
        remove(act=act)

    restore._remove_extras = lose_and_remove  # type: ignore[method-assign]
    here = names_below(machine.files)
    restore.run()
    assert names_below(machine.files) == here
    assert "nothing more was removed" in restore.removals.failed.kept[0].reason


def restored_around(machine: Machine, report: BackupReport, own: Path) -> None:
    """Restore everything in place on a machine whose agent has its own state there."""
    seen = own.stat()
    machine.restoring(
        report.root,
        machine.home,
        overwrite=True,
        bounds=bounds_of(machine, EVERYTHING),
        own=frozenset([(seen.st_dev, seen.st_ino)]),
    ).run()


def test_the_agents_own_and_half_written_files_stay(machine: Machine) -> None:
    report = machine.back_up(rules=EVERYTHING)
    own = machine.files / "new/agent"
    (own / "cache").mkdir(parents=True)
    (own / "machine.key").write_bytes(b"key")
    half = machine.files / "full" / os.fsdecode(next(temporary_names()))
    half.write_bytes(b"half")
    restored_around(machine, report, own)
    assert (own / "machine.key").exists()
    assert (own / "cache").exists()
    assert half.exists()


def test_the_agents_own_stays_where_the_restore_point_has_some_of_it(machine: Machine) -> None:
    own = machine.files / "agent"
    (own / "cache").mkdir(parents=True)
    report = machine.back_up(rules=EVERYTHING)
    (own / "cache/new").touch()
    (own / "new").touch()
    restored_around(machine, report, own)
    assert names_below(own) == {"cache", "cache/new", "new"}


def test_the_agents_own_is_not_restored_over(machine: Machine) -> None:
    own = machine.files / "agent"
    (own / "cache").mkdir(parents=True)
    for name in ("machine.key", "cache/state", "gone"):
        (own / name).write_text("old")
    (machine.files / "agent-too").write_text("old")
    report = machine.back_up(rules=EVERYTHING)
    for name in ("machine.key", "cache/state"):
        (own / name).write_text("new and longer")
    (own / "gone").unlink()
    own.chmod(0o700)
    (machine.files / "agent-too").write_text("new and longer")
    seen = own.stat()
    here = picture(own)
    identities = frozenset([(seen.st_dev, seen.st_ino)])
    restore = machine.restoring(report.root, machine.home, overwrite=True, own=identities)
    assert restore.preview().overwrite == 1
    restore = machine.restoring(report.root, machine.home, overwrite=True, own=identities)
    done = restore.run()
    assert (picture(own), own.stat().st_mode) == (here, seen.st_mode)
    assert (machine.files / "agent-too").read_text() == "old"
    assert done.failed.count == 0
    assert [one.path for one in done.warnings.kept] == [b"files/agent"]


def entry(name: bytes, *, folder: bool = False) -> Entry:
    return Entry(name, 0o040755 if folder else 0o100644, OWNER, 1)


def test_directories_come_with_their_names_and_so_do_those_that_have_none() -> None:
    tree = [
        (b"", entry(b"top", folder=True)),
        (b"top", entry(b"a", folder=True)),
        (b"top", entry(b"b", folder=True)),
        (b"top", entry(b"c", folder=True)),
        (b"top", entry(b"file")),
        (b"top/b", entry(b"x", folder=True)),
        (b"top/b", entry(b"y", folder=True)),
        (b"top/b/y", entry(b"z")),
    ]
    assert list(directories(tree)) == [
        (b"top", {b"a", b"b", b"c", b"file"}),
        (b"top/a", set()),
        (b"top/b", {b"x", b"y"}),
        (b"top/b/x", set()),
        (b"top/b/y", {b"z"}),
        (b"top/c", set()),
    ]


@pytest.mark.parametrize(
    "parents", [[b"", b"b"], [b"", b"a/b"], [b"", b"a", b""], [b"", b"a", b"c", b"a"]]
)
def test_a_tree_that_makes_no_sense_is_refused(parents: list[bytes]) -> None:
    tree = [(parent, entry(b"a" if not parent else b"q", folder=True)) for parent in parents]
    with pytest.raises(InvalidError):
        list(directories(tree))
