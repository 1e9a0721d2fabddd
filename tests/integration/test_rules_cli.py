"""What a backup leaves out, as it is typed: real programs over mutual TLS."""

from __future__ import annotations

from pathlib import Path

from tests.integration import test_cli
from tests.integration.place import Place

place = test_cli.place
machine = test_cli.machine


def test_a_backup_set_keeps_its_rules_and_a_plan_tells_them(place: Place, machine: str) -> None:
    source: Path = place.directory / "ruled"
    (source / "build").mkdir(parents=True)
    for name in ("a.c", "a.o", "keep.o", "build/x"):
        (source / name).write_bytes(b"12345")
    rules = ("--exclude", "*.o", "--exclude", "build/", "--include", "keep.o")
    place.good("backup", "set", machine, "--path", str(source), *rules)
    (planned,) = place.rows("backup", "plan", machine)
    (made,) = place.rows("backup", "run", machine)
    assert (planned["files"], planned["bytes"]) == (made["files"], made["bytes"]) == (2, 10)
    assert {one["rule"]: one["entries"] for one in planned["left_out"]} == {"*.o": 1, "build/": 1}
    shown = place.good("backup", "plan", machine)
    assert "without *.o" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (whole,) = place.rows("backup", "plan", machine, "--path", str(source))
    assert whole["files"] == 4
    refused = place.stead("backup", "set", machine, "--path", "/srv", "--exclude", "x\\")
    assert refused.returncode == 1
    assert b"is no rule in the syntax of .gitignore" in refused.stdout
    assert [one["files"] for one in place.rows("backup", "plan", machine)] == [2]
