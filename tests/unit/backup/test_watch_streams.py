"""Backups with streams go by what was watched, and make the tree that a walk makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.selection import Commands, CommandStream
from protocol.vault.chunk import Opener
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO
from tests.unit.backup.watched import WatchedMachine


def printing(*streams: tuple[bytes, str]) -> Commands:
    return Commands(
        tuple(
            CommandStream(path, (sys.executable, "-c", f"print({text!r})"))
            for path, text in streams
        )
    )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    made = WatchedMachine(tmp_path / "machine")
    for name in ("a/deep", "b", "z"):
        (made.files / name).mkdir(parents=True)
        (made.files / name / "file").write_text(name)
    yield made
    made.stop()


def test_streams_beside_above_and_apart_are_new_in_each_watched_run(
    machine: WatchedMachine,
) -> None:
    files = bytes(machine.files)
    places = (b"/streams/deep/db", b"/0first", b"/zz/last", files + b".dump", files + b"0/x")
    first = machine.run(commands=printing(*((path, "one") for path in places)))
    assert first.detector.startswith("walk")
    before = len(machine.vault.points)
    for text in ("two", "three"):
        (machine.files / "b/file").write_text(text)
        (machine.files / f"b/{text}").mkdir()
        (machine.files / "a/deep/file").unlink(missing_ok=True)
        report = machine.run_beside_a_walk(printing(*((path, text) for path in places)))
        assert report.detector == "watch"
        assert report.is_complete, report.skipped.as_json()
        for path in places:
            restored, _ = machine.restore(report.root, path[1:])
            assert restored.read_text() == text + "\n"
        reader = TreeReader(Opener(WHO.secret), machine.vault.get)
        paths = [parent + b"/" + entry.name for parent, entry in reader.entries(report.root)]
        assert len(paths) == len(set(paths)) == report.root.entries
        assert {b"/streams", b"streams/deep", b"/zz"} <= set(paths)
    assert len(machine.vault.points) == before + 2


def test_a_stream_that_failed_is_back_in_the_next_watched_run(machine: WatchedMachine) -> None:
    good = printing((b"/streams/db", "fine"))
    machine.run(commands=good)
    bad = Commands((CommandStream(b"/streams/db", (sys.executable, "-c", "raise SystemExit(3)")),))
    report = machine.run(commands=bad)
    assert report.detector == "watch"
    assert [one["path"] for one in report.skipped.as_json()] == ["/streams/db"]
    report = machine.run_beside_a_walk(good)
    assert report.detector == "watch"
    assert report.is_complete
    restored, _ = machine.restore(report.root, b"streams/db")
    assert restored.read_text() == "fine\n"


def test_other_streams_are_a_reason_to_walk(machine: WatchedMachine) -> None:
    machine.run(commands=printing((b"/streams/db", "one")))
    report = machine.run(commands=printing((b"/streams/other", "one")))
    assert report.detector == "walk: rules"
    report = machine.run()
    assert report.detector == "walk: rules"
    paths = TreeReader(Opener(WHO.secret), machine.vault.get).entries(report.root)
    assert not any(parent.startswith(b"streams") for parent, _ in paths)
