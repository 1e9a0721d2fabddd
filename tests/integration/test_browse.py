"""Browsing restore points from an operator's machine, while the backed up one is away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browse_world import BrowseWorld, browse_world, rows_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowseWorld]:
    with browse_world(tmp_path_factory.mktemp("browse")) as made:
        yield made


def asked(world: BrowseWorld, capsys: Capture, *argv: str) -> list[dict[str, Any]]:
    code = world.stead("backup", *argv, "--output", "json")
    said = capsys.readouterr()
    assert code == 0, said.err
    return rows_of(said.out)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["path"].rpartition("/")[2] for row in rows)


def test_a_tree_shows_folders_with_the_size_of_what_is_below(
    world: BrowseWorld, capsys: Capture
) -> None:
    rows = asked(world, capsys, "tree", world.machine, "latest", str(world.files), "--depth", "1")
    by_name = {row["path"]: row for row in rows}
    photos = by_name[f"{world.files}/photos"]
    assert (photos["size_bytes"], photos["files"]) == (3_000_000 + 2 * 70_000, 3)
    assert by_name[f"{world.files}/deep"]["entries"] == 3
    assert rows[0]["path"] == str(world.files)
    assert rows[0]["size_bytes"] == sum(
        path.lstat().st_size
        for path in world.files.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    assert len(rows) == 4
    assert world.stead("backup", "tree", world.machine, "latest", str(world.files), "--files") == 0
    shown = capsys.readouterr().out
    assert "├─ " in shown
    assert "\x1b" not in shown
    assert "\\x1b[31mred\\n\\xff" in shown


def test_find_looks_for_names_sizes_and_types(world: BrowseWorld, capsys: Capture) -> None:
    def found(*options: str) -> list[str]:
        return names(asked(world, capsys, "find", world.machine, "latest", "/", *options))

    assert found("--name", "*.jpg") == ["cat.jpg", "dog.jpg", "hound.jpg"]
    assert found("--name", "*.jpg", "--larger", "1M") == ["cat.jpg"]
    assert found("--type", "symlink") == ["link"]
    assert found("--type", "file", "--smaller", "1") == ["tiny"]
    assert found("--name", "*.txt", "--since", "1h") == ["new.txt", "report.txt"]
    assert found("--until", "1990-01-01") == ["dog.jpg", "hound.jpg"]
    assert found("--name", "nothing like it") == []


def test_find_in_all_points_lists_each_version_with_the_newest_point_that_has_it(
    world: BrowseWorld, capsys: Capture
) -> None:
    rows = asked(world, capsys, "find", world.machine, "all", "/", "--name", "*.txt")
    seen = sorted(
        (row["path"].rpartition("/")[2], world.points.index(row["point"])) for row in rows
    )
    assert seen == [("new.txt", 2), ("notes.txt", 1), ("report.txt", 0), ("report.txt", 2)]


def test_a_diff_says_what_changed_and_in_what_way(world: BrowseWorld, capsys: Capture) -> None:
    first, second, third = world.points
    rows = asked(world, capsys, "diff", world.machine, first, second)
    told = {row["path"].rpartition("/")[2]: (row["change"], row["what"]) for row in rows}
    assert told["new.txt"] == ("added", [])
    assert told["report.txt"][0] == "changed"
    assert told["report.txt"][1][0] == "content"
    assert len(told) == 2
    rows = asked(world, capsys, "diff", world.machine, second, third)
    told = {row["path"].rpartition("/")[2]: (row["change"], row["what"]) for row in rows}
    assert told == {
        "notes.txt": ("removed", []),
        "tiny": ("changed", ["mode"]),
        "dog.jpg": ("changed", ["time"]),
        "hound.jpg": ("changed", ["time"]),
    }
    assert asked(world, capsys, "diff", world.machine, third, "latest") == []


def test_a_diff_can_be_kept_to_a_folder_and_to_sums(world: BrowseWorld, capsys: Capture) -> None:
    first, _, third = world.points
    below = str(world.files / "docs")
    rows = asked(world, capsys, "diff", world.machine, first, third, below, "--stat")
    assert [(row["change"], row["files"]) for row in rows] == [
        ("added", 1),
        ("removed", 1),
        ("changed", 1),
    ]
    assert asked(world, capsys, "diff", world.machine, third, first, below)
    assert world.stead("backup", "diff", world.machine, first, third, "/nowhere") == 1
    assert "in neither restore point" in capsys.readouterr().err


def test_a_history_takes_points_with_the_same_version_together(
    world: BrowseWorld, capsys: Capture
) -> None:
    first, second, third = world.points
    rows = asked(world, capsys, "history", world.machine, str(world.files / "docs/report.txt"))
    assert [(row["point"], row["points"]) for row in rows] == [(third, 2), (first, 1)]
    rows = asked(world, capsys, "history", world.machine, str(world.files / "docs/old/notes.txt"))
    assert [(row["point"], row["state"]) for row in rows] == [(third, "absent"), (second, "there")]
    rows = asked(world, capsys, "history", world.machine, str(world.files / "docs"), "--every")
    assert [row["files"] for row in rows] == [2, 3, 2]
    rows = asked(world, capsys, "history", world.machine, str(world.files / "photos"))
    assert [row["points"] for row in rows] == [1, 2]
    assert world.stead("backup", "history", world.machine, "/nowhere") == 1
    assert "stead backup find" in capsys.readouterr().err


def test_a_point_is_named_by_the_beginning_of_its_id_or_by_a_time(
    world: BrowseWorld, capsys: Capture
) -> None:
    notes = str(world.files / "docs/old/notes.txt")
    for name in (world.points[1], world.points[1].upper()):
        assert world.stead("backup", "cat", world.machine, name, notes) == 0
        assert capsys.readouterr().out == "some notes\n" * 100
    assert world.stead("backup", "cat", world.machine, "now", notes) == 1
    assert "is not in restore point" in capsys.readouterr().err
    assert world.stead("backup", "browse", world.machine, "rp_0", "/") == 2
    assert "begins the ids of 3 restore points" in capsys.readouterr().err
    assert world.stead("backup", "browse", world.machine, "1990-01-01", "/") == 1
    assert "no restore point as old as" in capsys.readouterr().err


def test_files_with_holes_and_big_ones_are_read_whole(world: BrowseWorld, tmp_path: Path) -> None:
    import subprocess
    import sys

    for name in ("sparse", "photos/cat.jpg"):
        ended = subprocess.run(
            [
                str(Path(sys.executable).parent / "stead"), "backup", "cat",
                world.machine, "latest", str(world.files / name),
            ],
            env=world.installation.environment, capture_output=True, check=True,
        )  # fmt: skip
        assert ended.stdout == (world.files / name).read_bytes()


def test_a_diff_with_the_live_machine_waits_for_it_and_tells_its_carriers_nothing(
    world: BrowseWorld, capsys: Capture
) -> None:
    """While the machine is away the order waits; what is found is sealed to who asked."""
    asking = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "stead"), "backup", "diff", world.machine, "latest",
            "live", str(world.files), "--output", "json",
        ],
        env=world.installation.environment,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with world.changed(), world.installation.service("stead-agent", "run"):
        out, _ = asking.communicate(timeout=60)
        assert asking.returncode == 0
        rows = rows_of(out.decode())
        told = {row["path"].rpartition("/")[2]: (row["change"], row["what"]) for row in rows}
        assert told == {"fresh-name": ("added", []), "report.txt": ("changed", ["content", "time"])}
        (changed,) = [row for row in rows if row["change"] == "changed"]
        assert changed["new"]["size_bytes"] == 3
        assert changed["old"]["size_bytes"] > 3
        sums = asked(world, capsys, "diff", world.machine, "latest", "live", "/", "--stat")
        assert [row["entries"] for row in sums] == [1, 0, 1]
        nowhere = world.stead("backup", "diff", world.machine, "latest", "live", "/nowhere")
        assert nowhere == 1
        assert "not below the paths" in capsys.readouterr().err
    job = world.installation.must("stead", "job", "show", "latest", "--output", "json")
    assert "compare_live" in job
    kept = [
        path.read_bytes()
        for path in world.installation.home.rglob("*")
        if path.is_file() and not path.is_relative_to(world.files)
    ]
    assert any(b"compare_live" in one for one in kept)
    assert not any(b"fresh-name" in one for one in kept)


def test_what_makes_no_sense_with_the_live_machine_is_refused(
    world: BrowseWorld, capsys: Capture
) -> None:
    for options, said in (
        (("live", "latest"), "first"),
        (("latest", "live", "--no-wait"), "--deliver-by"),
        (("latest", "live", "--content", "--quick"), "contradict"),
        (("latest", world.points[0], "--content"), "for `live`"),
    ):
        assert world.stead("backup", "diff", world.machine, *options) in (1, 2)
        assert said in capsys.readouterr().err
