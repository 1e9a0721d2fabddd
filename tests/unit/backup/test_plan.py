"""A plan names what the backup then takes and leaves out."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from agent.backup.plan import plan_backup
from agent.backup.run import Backup
from controller.cli.commands.backup_plan import plan_lines
from protocol.errors import InvalidError, NotFoundError
from protocol.selection import Commands, CommandStream, Rules
from tests.unit.backup.machine import WHO, Machine


def test_a_plan_counts_what_the_backup_takes_and_leaves_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for number in range(20):
        (machine.files / f"file{number}").write_bytes(bytes(number))
    (machine.files / "large").write_bytes(bytes(100_001))
    (machine.files / "link").symlink_to("file1")
    os.link(machine.files / "file2", machine.files / "second")
    (machine.files / "out").mkdir()
    (machine.files / "out" / "a.o").write_bytes(b"123")
    rules = Rules((b"*.o",), larger_than=100_000)
    paths = [bytes(machine.files)]
    planned = plan_backup(paths, rules, now_ns=0)
    report = Backup(
        paths,
        who=WHO,
        vault=machine.vault,
        memory=machine.memory,
        seed=random.Random(7),
        progress=machine.said.append,
        rules=rules,
    ).run()
    found = planned.as_json()
    assert (found["files"], found["bytes"]) == (report.root.files, report.root.bytes)
    assert found["left_out"] == report.left_out
    assert {one["rule"] for one in found["left_out"]} >= {"*.o"}
    sizes = [one["bytes"] for one in found["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert found["paths"][0]["files"] == found["files"]


def test_each_path_has_its_own_sum(tmp_path: Path) -> None:
    for name, size in (("one", 3), ("two", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(size))
    planned = plan_backup(
        [bytes(tmp_path / "one"), bytes(tmp_path / "two")], Rules(), now_ns=0
    ).as_json()
    assert [(one["files"], one["directories"], one["bytes"]) for one in planned["paths"]] == [
        (1, 1, 3),
        (1, 1, 5),
    ]


def test_programs_are_named_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    note = tmp_path / "note"
    touch = ("touch", str(note))
    commands = Commands((CommandStream(b"/streams/db.sql", touch),), before=touch, after=touch)
    planned = plan_backup([bytes(tmp_path / "files")], Rules(), now_ns=0, commands=commands)
    said = planned.as_json()
    assert said["streams"] == [{"path": "/streams/db.sql", "program": list(touch)}]
    assert said["before"] == said["after"] == list(touch)
    assert not note.exists()
    lines = [line["what"] for line in plan_lines({"machine": "web", **said})]
    assert f"/streams/db.sql, printed by touch {note}" in lines
    assert f"before it runs touch {note}" in lines
    inside = Commands((CommandStream(bytes(tmp_path / "files/x"), touch),))
    with pytest.raises(InvalidError, match="in each other's way"):
        plan_backup([bytes(tmp_path / "files")], Rules(), now_ns=0, commands=inside)


def test_a_plan_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        plan_backup([], Rules(), now_ns=0)
    with pytest.raises(NotFoundError):
        plan_backup([bytes(tmp_path / "gone")], Rules(), now_ns=0)
