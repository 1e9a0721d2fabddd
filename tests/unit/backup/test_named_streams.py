"""Named streams go into a backup and come out of it, whatever system they are of."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.backup.restore.belonging import Belonging, Owners
from agent.backup.restore.placer import Placer
from agent.backup.scan.sample import Sample, take
from agent.metadata.named import Fill
from protocol.vault.chunk import ChunkId, Kind, Opener, Reference, inspect
from protocol.vault.differences import differences
from protocol.vault.entry import Entry, Extent, Owner, Stream
from protocol.vault.node import Root
from protocol.vault.path import join
from protocol.vault.point import Totals
from protocol.vault.reader import TreeReader
from tests.fakes.side_streams import SideStreams
from tests.unit.backup.machine import WHO, Machine
from tests.unit.backup.test_drill import drill
from tests.unit.backup.test_live import compared
from tests.unit.backup.watched import WatchedMachine

BIG = random.Random(3).randbytes(900_000)
SMALL = random.Random(4).randbytes(5_000)
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"


class World:
    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.machine = Machine(home)
        self.side = SideStreams(home / "side")
        self.side.side.mkdir()
        self.side.install(patch)
        files = self.machine.files
        (files / "folder").mkdir()
        (files / "inline").write_bytes(b"tiny")
        (files / "small").write_bytes(SMALL)
        (files / "big").write_bytes(BIG[::-1])
        (files / "plain").write_bytes(SMALL[::-1])
        (files / "folder" / "empty").touch()
        self.side.give(files / "inline", zone=ZONE)
        self.side.give(files / "small", one=SMALL[1:], zone=ZONE, huge=BIG)
        self.side.give(files / "big", huge=BIG[1:], none=b"", zone=ZONE)
        self.side.give(files / "folder", icon=SMALL[2:])
        self.side.give(files / "folder" / "empty", zone=ZONE, huge=BIG[2:])
        os.link(files / "small", files / "zlink")
        self.names = ("inline", "small", "big", "plain", "folder", "folder/empty", "zlink")

    def entries(self, root: Root) -> dict[str, Entry]:
        reader = TreeReader(Opener(WHO.secret), self.machine.vault.get)
        found = {join(parent, entry.name).decode(): entry for parent, entry in reader.entries(root)}
        top = str(self.machine.files).lstrip("/") + "/"
        return {path.removeprefix(top): entry for path, entry in found.items()}

    def same(self, restored: Path) -> None:
        for name in self.names:
            was, now = self.machine.files / name, restored / name
            assert self.side.of(now) == self.side.of(was), name
            assert now.stat().st_mtime_ns == was.stat().st_mtime_ns, name
            if was.is_file():
                assert now.read_bytes() == was.read_bytes(), name


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.side.close()


def test_what_goes_in_comes_out(world: World) -> None:
    report = world.machine.back_up()
    assert report.skipped.count == 0
    restored, done = world.machine.restore(report.root)
    assert (done.failed.count, done.warnings.count) == (0, 0)
    world.same(restored)
    assert world.side.of(restored / "small")["huge"] == BIG


def test_an_entry_names_its_streams_in_order_and_links_share_them(world: World) -> None:
    entries = world.entries(world.machine.back_up().root)
    small = entries["small"]
    assert [(one.name, one.size) for one in small.streams] == [
        (b"huge", len(BIG)),
        (b"one", len(SMALL) - 1),
        (b"zone", len(ZONE)),
    ]
    assert entries["zlink"].streams == small.streams
    assert [one.extents for one in entries["big"].streams if one.name == b"none"] == [()]
    assert entries["plain"].streams == ()


def signed_totals(machine: Machine) -> Totals:
    """What the machine signed with its newest restore point."""
    totals: Totals = machine.vault.points[-1][0].totals
    return totals


def test_the_totals_say_what_streams_have_also_where_leaves_are_taken_over(world: World) -> None:
    files = world.machine.files
    for number in range(8_000):
        (files / f"many{number:04}").touch()
    # One that lies in a leaf of its own, far from the others.
    world.side.give(files / "many7999", huge=BIG)

    def there() -> int:
        return sum(
            len(content)
            for path in (*files.rglob("*"), files)
            for content in world.side.of(path).values()
        )

    report = world.machine.back_up()
    assert signed_totals(world.machine).stream_bytes == report.stream_bytes == there()
    assert report.root.bytes == sum(one.stat().st_size for one in files.rglob("*") if one.is_file())
    report = world.machine.back_up()
    assert report.reused_leaves > 0
    assert report.stream_bytes == there()
    world.side.give(files / "many0000", zone=ZONE)
    (files / "big").unlink()
    report = world.machine.back_up()
    assert report.reused_leaves > 0
    assert signed_totals(world.machine).stream_bytes == report.stream_bytes == there()


def test_a_watched_run_knows_what_the_streams_have_that_it_did_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, side = WatchedMachine(tmp_path / "machine"), SideStreams(tmp_path / "side")
    side.side.mkdir()
    side.install(monkeypatch)
    try:
        for folder in ("a", "z"):
            (machine.files / folder).mkdir()
            for number in range(1_500):
                (machine.files / folder / f"{number:04}").touch()
        side.give(machine.files / "z/1499", huge=BIG)
        side.give(machine.files / "a/0000", zone=ZONE)
        assert machine.run().stream_bytes == len(BIG) + len(ZONE)
        (machine.files / "a/new").touch()
        side.give(machine.files / "a/new", one=SMALL)
        report = machine.run()
        assert report.detector == "watch"
        assert report.stream_bytes == len(BIG) + len(ZONE) + len(SMALL)
        (machine.files / "z/1499").unlink()
        report = machine.run()
        assert report.detector == "watch"
        assert report.stream_bytes == len(ZONE) + len(SMALL)
    finally:
        machine.stop()
        side.close()


def test_equal_streams_are_stored_once(world: World) -> None:
    world.machine.back_up()
    before = set(world.machine.vault.chunks)
    (world.machine.files / "copy").touch()
    world.side.give(world.machine.files / "copy", huge=BIG)
    report = world.machine.back_up()
    assert world.entries(report.root)["copy"].streams[0].size == len(BIG)
    new = [stored for one, stored in world.machine.vault.chunks.items() if one not in before]
    assert {inspect(stored).kind for stored in new} == {Kind.TREE}


def test_a_stream_that_changed_is_read_again_and_the_others_are_not(world: World) -> None:
    world.machine.back_up()
    world.side.give(world.machine.files / "inline", zone=b"other")
    world.side.give(world.machine.files / "folder", icon=b"other")
    report = world.machine.back_up()
    assert report.counts.read_files == 1
    restored, _ = world.machine.restore(report.root)
    world.same(restored)


def test_where_there_is_no_place_it_is_told_once_and_the_files_are_there(world: World) -> None:
    report = world.machine.back_up()
    target = world.machine.home / "elsewhere"
    target.mkdir()
    world.side.nowhere.add(target)
    restored, done = world.machine.restore(report.root, target=target)
    assert [one.reason for one in done.warnings.kept] == [
        "named streams of 5 restored: Linux has no place for it"
    ]
    assert (restored / "small").read_bytes() == SMALL
    assert world.side.of(restored / "small") == {}


def test_a_stream_that_cannot_be_read_is_told_and_the_rest_is_kept(world: World) -> None:
    world.side.refused[b"huge"] = errno.EIO
    report = world.machine.back_up()
    told = sorted((one.path.rpartition(b"/")[2], one.reason) for one in report.skipped.kept)
    reason = "its named stream huge: input/output error"
    assert told == [(b"big", reason), (b"empty", reason), (b"small", reason)]
    restored, done = world.machine.restore(report.root)
    assert done.failed.count == 0
    assert world.side.of(restored / "big") == {"none": b"", "zone": ZONE}


def test_a_stream_that_cannot_be_written_is_a_failure_and_nothing_of_it_is_left(
    world: World,
) -> None:
    report = world.machine.back_up()
    world.side.refused[b"icon"] = world.side.refused[b"one"] = errno.EIO
    restored, done = world.machine.restore(report.root)
    assert sorted(one.path.rpartition(b"/")[2] for one in done.failed.kept) == [
        b"folder:icon",
        b"small:one",
    ]
    assert (restored / "small").read_bytes() == SMALL
    assert sorted(world.side.of(restored / "small")) == ["huge", "zone"]


def test_a_restore_in_place_writes_the_files_whose_streams_differ(world: World) -> None:
    files = world.machine.files
    report = world.machine.back_up()
    was = (files / "inline").stat()
    world.side.give(files / "inline", zone=ZONE + b"more", extra=b"")
    os.utime(files / "inline", ns=(was.st_mtime_ns, was.st_mtime_ns))
    world.side.give(files / "folder", extra=b"1")
    found = world.machine.preview(report.root, world.machine.home)
    assert [path.rpartition(b"/")[2] for path, _ in found.changes] == [b"folder", b"inline"]
    _, done = world.machine.restore(report.root, target=world.machine.home, overwrite=True)
    assert (done.failed.count, done.warnings.count, done.files) == (0, 0, 1)
    assert world.side.of(files / "inline") == {"zone": ZONE}
    assert world.side.of(files / "folder") == {"icon": SMALL[2:]}


def test_verifying_finds_another_stream_of_the_same_length(world: World) -> None:
    files = world.machine.files
    report = world.machine.back_up()
    for name, stream, content in (
        ("small", "huge", BIG[:-1] + bytes([BIG[-1] ^ 1])),
        ("folder/empty", "zone", ZONE[::-1]),
    ):
        was = (files / name).stat()
        world.side.give(files / name, **{stream: content})
        os.utime(files / name, ns=(was.st_mtime_ns, was.st_mtime_ns))
    _, done = world.machine.restore(
        report.root, target=world.machine.home, overwrite=True, verify=True
    )
    assert done.failed.count == 0
    assert world.side.of(files / "small")["huge"] == BIG
    assert world.side.of(files / "folder" / "empty") == {"zone": ZONE, "huge": BIG[2:]}
    assert world.side.of(files / "zlink")["huge"] == BIG


def test_a_file_that_changes_while_its_streams_are_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = world.side.read_stream
    files = world.machine.files

    def meanwhile(directory: int, name: bytes, stream: bytes) -> AbstractContextManager[Fill]:
        if name == b"inline" and not changed:
            changed.append(name)
            world.side.give(files / "inline", zone=b"new")
            os.utime(files / "inline", ns=(7, 7))
        return read(directory, name, stream)

    changed: list[bytes] = []
    world.side.read_stream = meanwhile  # type: ignore[method-assign, assignment]
    world.side.install(monkeypatch)
    report = world.machine.back_up()
    assert report.counts.changed_while_read == 1
    assert world.entries(report.root)["inline"].changed_while_read
    report = world.machine.back_up()
    assert report.counts.read_files == 1
    assert not world.entries(report.root)["inline"].changed_while_read
    restored, _ = world.machine.restore(report.root)
    assert world.side.of(restored / "inline") == {"zone": b"new"}


def test_equal_streams_in_other_chunks_are_no_difference() -> None:
    def stream(name: bytes, chunk: int, size: int = 4) -> Stream:
        reference = Reference(ChunkId(bytes([chunk]) * 32), bytes(32), 9, bytes(16))
        return Stream(name, size, (Extent(reference, 0, size),))

    def entry(*streams: Stream, mtime_ns: int = 5) -> Entry:
        return Entry(b"x", 0o100644, Owner(0, 0), mtime_ns, 1, inline=b"1", streams=streams)

    asked: list[tuple[Entry, Entry]] = []

    def same_content(old: Entry, new: Entry) -> bool:
        asked.append((old, new))
        return old.extents[0].reference == stream(b"a", 1).extents[0].reference

    one = entry(stream(b"a", 1), stream(b"b", 2))
    assert differences(one, entry(stream(b"a", 3), stream(b"b", 2)), same_content) == ()
    ((old, new),) = asked
    assert (old.name, old.size, old.mtime_ns, new.mtime_ns) == (b"a", 4, 5, 5)
    for other in (
        entry(stream(b"a", 1), stream(b"b", 4)),
        entry(stream(b"a", 1)),
        entry(stream(b"a", 1), stream(b"c", 2)),
        entry(stream(b"a", 1), stream(b"b", 2, 5)),
        entry(),
    ):
        assert differences(one, other, same_content) == ("streams",)


def hidden(world: World, name: str, **streams: bytes) -> None:
    """Change streams without a change of the file's time."""
    path = world.machine.files / name
    was = path.stat()
    world.side.give(path, **streams)
    os.utime(path, ns=(was.st_mtime_ns, was.st_mtime_ns))


def test_a_comparison_says_which_files_have_other_streams(world: World) -> None:
    report = world.machine.back_up()
    assert compared(world.machine, report.root)[0] == {}
    hidden(world, "inline", more=b"1")
    hidden(world, "big", zone=ZONE[::-1])
    world.side.give(world.machine.files / "folder", icon=SMALL[2:])
    assert compared(world.machine, report.root)[0] == {"inline": ("streams",)}
    assert compared(world.machine, report.root, content=True)[0] == {
        "inline": ("streams",),
        "big": ("streams",),
    }
    world.side.give(world.machine.files / "folder", icon=SMALL[3:] + b"1")
    assert compared(world.machine, report.root)[0]["folder"] == ("time", "streams")


def test_where_there_is_no_place_a_comparison_believes_what_was(world: World) -> None:
    report = world.machine.back_up()
    world.side.nowhere.add(world.machine.files)
    assert compared(world.machine, report.root, content=True)[0] == {}


def test_a_drill_compares_streams_with_the_vault_and_with_the_live_file(world: World) -> None:
    report = world.machine.back_up()
    assert drill(world.machine, report).wrong == []
    hidden(world, "inline", zone=ZONE[::-1])
    ((path, reason),) = drill(world.machine, report).wrong
    assert path.endswith(b"/inline")
    assert reason.startswith("the live file, ")
    assert reason.endswith("its named streams are not those that were backed up")


def test_a_drill_finds_a_stream_that_the_vault_has_lost_where_none_can_be_written(
    world: World,
) -> None:
    report = world.machine.back_up()
    world.side.nowhere.add(world.machine.home)
    (stream,) = world.entries(report.root)["inline"].streams
    huge = world.entries(report.root)["folder/empty"].streams[0]
    reference = huge.extents[0].reference
    assert stream.extents
    assert reference is not None
    del world.machine.vault.chunks[reference.id]
    wrong = dict(drill(world.machine, report).wrong)
    (path,) = wrong
    assert path.endswith(b"/folder/empty")
    assert wrong[path].startswith("the restored file: a named stream: ")


def test_a_lost_chunk_of_a_stream_costs_that_stream_alone(world: World) -> None:
    report = world.machine.back_up()
    huge = world.entries(report.root)["folder/empty"].streams[0]
    reference = huge.extents[0].reference
    assert reference is not None
    del world.machine.vault.chunks[reference.id]
    restored, done = world.machine.restore(report.root)
    (failed,) = done.failed.kept
    assert failed.path.endswith(b"/folder/empty:huge")
    assert failed.reason.startswith("named stream: ")
    assert world.side.of(restored / "folder" / "empty") == {"zone": ZONE}
    assert world.side.of(restored / "small")["huge"] == BIG


def test_a_sample_reads_streams_again(world: World) -> None:
    files, vault = world.machine.files, world.machine.vault
    entry = world.entries(world.machine.back_up().root)["small"]
    fd = os.open(files, os.O_RDONLY)
    try:
        taken = take(fd, b"small", entry, (files / "small").stat())
        assert taken is not None
        sample = Sample(random.Random(1), lambda _: [])
        sample.add([taken])
        assert sample.mismatches(vault, Opener(WHO.secret)) == []
        hidden(world, "small", zone=ZONE[::-1])
        # It has another time of change, so it is not what was looked at.
        later = (files / "small").stat()
        taken = take(fd, b"small", entry, later)
        assert taken is not None
        sample.add([taken])
        assert sample.mismatches(vault, Opener(WHO.secret)) == [b"small:zone"]
        world.side.give(files / "small", one=b"")
        assert take(fd, b"small", entry, later) is None
    finally:
        os.close(fd)


def test_a_hostile_name_of_a_stream_leads_nowhere(world: World) -> None:
    inline = world.entries(world.machine.back_up().root)["inline"]
    names = (b"../../escape", b"a:b", b"a\\b", b"", b"\xff", b"x" * 300, b"good")
    streams = tuple(replace(inline.streams[0], name=name) for name in sorted(names))
    entry = replace(inline, name=b"hostile", streams=streams)
    target = world.machine.home / "target"
    target.mkdir()
    content = [ZONE]
    belonging = Belonging(Owners.NONE)
    with Placer(
        bytes(target), belonging, overwrite=False, flags=True, content_of=lambda _: content
    ) as placer:
        file = placer.create(b"", entry)
        assert file is not None
        placer.close(file)
        placer.finish()
    assert [one.reason for one in placer.done.warnings.kept] == [
        "named streams of 1 restored: Linux has no place for it"
    ]
    assert world.side.of(target / "hostile") == {"good": ZONE}
