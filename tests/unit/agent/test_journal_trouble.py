"""The journal on a disk that is full or fails: it is whole and goes on, or it refuses."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agent.host import files
from agent.tasks.entry import JournalError
from agent.tasks.journal import Journal, new_journal
from protocol.errors import Code
from tests.property.test_journal import NOW, outcome, picture, take

DONE = ("accept", "start", "end", "acknowledge")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the write that crosses it is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    path = tmp_path / "journal"
    path.write_bytes(new_journal())
    journal = Journal(path)
    for step in DONE:
        take(journal, step, 1)
    yield journal
    journal.close()


def test_a_record_that_does_not_fit_leaves_no_trace_and_the_next_one_does(
    journal: Journal, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    whole, before = path.read_bytes(), picture(journal)
    for room in range(len(whole), len(whole) + 200, 7):
        with room_for(room), pytest.raises(JournalError) as caught:
            take(journal, "accept", 2)
        assert caught.value.code is Code.STORE_FULL
        assert path.read_bytes() == whole
        assert picture(journal) == before
    take(journal, "accept", 2)
    again = Journal(path)
    assert picture(again) == picture(journal)
    again.close()


def test_after_a_failed_fsync_nothing_is_promised_any_more(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(JournalError):
            take(journal, "accept", 2)
    # A second fsync that succeeds says nothing about what the first one lost.
    for attempt in (lambda: take(journal, "accept", 3), journal.check, lambda: journal.prune(NOW)):
        with pytest.raises(JournalError, match="fsync"):
            attempt()


def test_tidying_on_a_full_disk_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = path.read_bytes()
    with room_for(10), pytest.raises(JournalError, match="not tidied"):
        journal.prune(NOW)
    assert path.read_bytes() == whole
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]
    take(journal, "accept", 2)
    again = Journal(path)
    assert picture(again) == picture(journal)
    again.close()


def test_a_journal_that_lost_its_name_takes_no_more_orders(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they would be written to a file without a name, and executed again."""

    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    journal.saw(NOW + timedelta(days=60))
    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_directory", fails)
        with pytest.raises(JournalError, match="not tidied"):
            journal.prune(NOW + timedelta(days=60))
    with pytest.raises(JournalError, match="replaced half way"):
        take(journal, "accept", 2)
    again = Journal(tmp_path / "journal")
    take(again, "accept", 2)
    assert outcome(1).task not in {entry.task for entry in again.entries()}
    again.close()
