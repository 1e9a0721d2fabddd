"""Names of one file stay names of one file, also where there are more than memory holds."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

import pytest

from agent.backup import run
from agent.backup.scan.detect import MAX_LINKS
from agent.backup.scan.groups import Groups
from agent.backup.scan.scratch import Scratch
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    chance = random.Random(11)
    folders = [made.files / f"folder{number:02}" for number in range(20)]
    for folder in (*folders, made.home / "outside"):
        folder.mkdir()
    for number in range(400):
        place = chance.choice(folders) / f"first{number:03}"
        if number % 10 == 0:
            os.mkfifo(place)
        elif number % 10 == 1:
            place.symlink_to("nowhere")
        else:
            # What is sealed elsewhere comes late: only the last folder has such.
            sizes = (3_000, 300_000) if place.parent == folders[-1] else (0, 40, 250)
            place.write_bytes(chance.randbytes(chance.choice(sizes)))
            os.setxattr(place, "user.number", b"%d" % number)
        for further in range(chance.randint(0, 4)):
            where = made.home / "outside" if further == 3 else chance.choice(folders)
            os.link(place, where / f"name{number:03}-{further}", follow_symlinks=False)
    monkeypatch.setattr(run, "Groups", partial(Groups, most=16))
    return made


def test_groups_put_aside_are_the_groups_that_were_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    take = Scratch.take

    def counted(scratch: Scratch, identity: tuple[int, int]) -> tuple[int, bytes] | None:
        found = take(scratch, identity)
        taken.append(found)
        return found

    monkeypatch.setattr(Scratch, "take", counted)
    report = machine.back_up()
    assert len([one for one in taken if one is not None]) > 20
    restored, done = machine.restore(report.root)
    assert not done.failed.count
    assert picture(restored) == _inside(machine)
    assert sorted(path.name for path in machine.memory.path.iterdir()) == [
        "expected",
        "lock",
        "nodes.1",
        "state",
    ]
    again = machine.back_up()
    assert again.counts.read_files == 0
    # The folders above are everybody's: their times may have changed.
    assert again.root[2:] == report.root[2:]
    assert again.new_chunks <= 3


def _inside(machine: Machine) -> object:
    """What the backup can see: a file whose other names are all outside has one name there."""
    seen = picture(machine.files)
    firsts = [facts.get("first") for facts in seen.values()]
    for facts in seen.values():
        if firsts.count(facts.get("first")) == 1:
            facts.pop("first", None)
    return seen


def test_a_disk_without_room_for_them_has_them_stay_in_memory(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scratch, "put", lambda *_: False)
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    assert picture(restored) == _inside(machine)


def test_more_than_are_wanted_are_not_told() -> None:
    assert Groups().left(MAX_LINKS) == {}
    assert Groups().left(-1) is None
