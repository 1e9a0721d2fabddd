"""What a running controller is asked about its vault, as it is typed: real programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import test_cli
from tests.integration.place import Place

place = test_cli.place
machine = test_cli.machine


def objects(place: Place) -> Path:
    return place.directory / "home" / "controller" / "objects"


@pytest.fixture(scope="module")
def source(place: Place, machine: str) -> Path:
    """A folder with some files, backed up."""
    made = place.directory / "source"
    made.mkdir()
    for number in range(40):
        (made / f"file{number:02}").write_bytes(os.urandom(500 * number))
    (made / "big").write_bytes(os.urandom(2_000_000))
    words = ("--path", str(made), "--drill", "weekly")
    place.good("backup", "set", machine, *words)
    place.good("backup", "run", machine)
    return made


def test_a_running_controller_checks_its_vault(place: Place, machine: str, source: Path) -> None:
    checked = place.rows("vault", "check")
    assert (checked["state"], checked["faults"]) == ("ok", [])
    assert checked["points"] == len(place.rows("backup", "ls", machine))
    assert checked["packs"] == len([p for p in objects(place).glob("*/packs/*/*") if p.is_file()])
    assert "state" in place.good("vault", "scrub", "--now")
    (status,) = place.rows("vault", "scrub", "--status")
    assert status["state"] == "ok"
    assert [one["kind"] for one in status["rounds"] if one["ended_at"]] == ["ordered"]
    shown = place.good("vault", "scrub")
    assert max(map(len, shown.splitlines())) <= 80
    assert "not both" in place.bad("vault", "scrub", "--now", "--status", code=2)
    assert "goes with --now" in place.bad("vault", "scrub", "--rate", "50M", code=2)
    assert "not a rate" in place.bad("vault", "scrub", "--now", "--rate", "fast", code=2)
    for words in (("--now", "--rate", "1G"), ("--now", "--dry-run", "--rate", "1G")):
        assert place.rows("vault", "scrub", *words)["stored_bytes"] == checked["stored_bytes"]


def test_figures_add_up(place: Place, machine: str, source: Path) -> None:
    (vault,) = place.rows("vault", "stats")
    size = sum(path.stat().st_size for path in source.iterdir())
    assert vault["newest_bytes"] == size
    assert vault["logical_bytes"] == size * vault["points"]
    assert vault["stored_bytes"] == sum(
        p.stat().st_size for p in objects(place).glob("*/packs/*/*") if p.is_file()
    )
    # Random bytes do not compress: what is unique is what is stored, but for the tree.
    assert vault["unique_is_known"]
    assert abs(vault["unique_bytes"] - size) < size * 0.05
    assert [one["machine"] for one in vault["machines"]] == [machine]
    assert sum(one["stored_bytes"] for one in vault["growth"]) == vault["stored_bytes"]
    for words in ((), ("--machines",), ("--growth", "day")):
        shown = place.good("vault", "stats", *words)
        assert max(map(len, shown.splitlines())) <= 80


def test_a_drill_proves_that_the_newest_restore_point_restores(
    place: Place, machine: str, source: Path
) -> None:
    place.good("backup", "run", machine)
    (before,) = place.rows("machine", "ls")
    if not place.rows("backup", "drill", "ls"):
        assert before["drill_state"] == ""
        assert "untried" in place.good("machine", "ls")
    place.good("backup", "set", machine, "--path", str(source), "--drill", "weekly")
    place.good("backup", "run", machine)
    words = ("backup", "drill", machine, "--canary", str(source / "big"))
    (done,) = place.rows(*words)
    assert (done["state"], done["wrong"], done["details"]) == ("succeeded", 0, [])
    assert done["files"] == done["compared"] == 41
    assert done["bytes"] > 2_000_000
    assert not list(place.directory.glob("m1/agent/cache/backup/drill/*"))
    listed = place.rows("backup", "drill", "ls", codes=(0, 3))[0]
    assert (listed["machine"], listed["state"]) == (machine, "good")
    assert listed["drill"] == done["drill"]
    (after,) = place.rows("machine", "ls")
    assert after["drill_state"] == "good"
    assert after["last_drill_at"] == listed["received_at"]
    assert "drill good" in place.good("snapshot", "show", machine)
    # After every backup a few files are decoded again, and that is told as well.
    samples = place.rows("backup", "drill", "ls", machine, "--samples")
    assert samples
    assert {one["state"] for one in samples} == {"good"}
    assert all(one["files"] > 0 for one in samples)
    assert place.good("backup", "drill", machine, "--dry-run") != ""


def test_a_machine_without_its_own_key_says_what_to_do(
    place: Place, machine: str, source: Path
) -> None:
    place.good("backup", "set", machine, "--path", str(source), "--drill", "never")
    place.good("backup", "run", machine)
    (done,) = place.rows("backup", "drill", machine, codes=(1,))
    assert "--drill weekly" in done["message"]
    assert "--drill never" in place.bad(
        "backup", "set", machine, "--path", str(source), "--no-own-key", code=2
    )


def test_a_history_is_drawn(place: Place, machine: str, source: Path) -> None:
    place.good("backup", "run", machine)
    shown = place.good("backup", "ls", machine, "--graph")
    assert "█" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) == len(place.rows("backup", "ls", machine)) + 2


def test_holds_and_tags_take_what_names_a_restore_point(
    place: Place, machine: str, source: Path
) -> None:
    newest = place.rows("backup", "ls", machine)[0]["point"]
    place.good("backup", "tag", machine, "latest", "--add", "release")
    place.good("backup", "hold", machine, "today", "--reason", "a lawsuit")
    (row,) = (one for one in place.rows("backup", "keep", machine) if one["point"] == newest)
    assert row["tags"] == ["release"]
    assert any("a lawsuit" in reason for reason in row["reasons"])
    place.good("backup", "release", machine, newest, "--reason", "over")
    place.good("backup", "tag", machine, newest, "--remove", "release")
    assert "is no restore point" in place.bad(
        "backup", "hold", machine, "gibberish", "--reason", "x", code=2
    )
    assert "range x>=1" in place.bad("backup", "keep", machine, "--floor", "0", code=2)
    assert "range x>=0" in place.bad("backup", "keep", machine, "--last", "-1", code=2)
