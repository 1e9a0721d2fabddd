"""Backups and restores as they are typed: real programs, a real controller and agent."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.integration.place import AGENT, WAIT_S, Place, machine, place, started, stopped

__all__ = ["machine", "place"]


def test_files_come_back_byte_for_byte(place: Place, machine: str) -> None:
    source = place.directory / "source"
    (source / "sub").mkdir(parents=True)
    big = os.urandom(3_000_000)
    (source / "big").write_bytes(big)
    (source / "sub" / "small").write_text("hello\n")
    (source / "link").symlink_to("big")
    with (source / "sparse").open("wb") as file:
        file.truncate(3_000_000)
    place.good("backup", "set", "all", "--path", str(source), "--schedule", "daily")
    (run,) = place.rows("backup", "run", "all")
    (point,) = place.rows("backup", "ls", machine)
    assert (point["point"], point["state"]) == (run["point"], "ok")
    assert point["paths"] == [str(source)]
    listed = place.rows("backup", "browse", machine, "latest", str(source))
    assert [row["name"] for row in listed] == ["big", "link", "sparse", "sub"]
    below = place.rows("backup", "browse", machine, point["point"], "/", "-R")
    assert f"{source}/sub/small" in {row["path"] for row in below}
    for name in ("big", "sparse", "sub/small"):
        done = place.stead("backup", "cat", machine, "latest", f"{source}/{name}")
        assert done.stdout == (source / name).read_bytes(), done.stderr
    back = place.directory / "back"
    place.good("backup", "restore", machine, "latest", str(source), "--to", str(back))
    assert (back / "source" / "big").read_bytes() == big
    assert (back / "source" / "link").readlink() == Path("big")
    one = place.directory / "one"
    words = ("backup", "restore", machine, "latest", f"{source}/sub/small", "--to", str(one))
    assert f"{one}/small" in place.good(*words)
    assert [p.name for p in one.iterdir()] == ["small"]
    place.good(*words)  # what is the same already is left alone
    (one / "small").write_text("mine\n")
    again = place.stead(*words)
    assert again.returncode == 3, again
    assert (one / "small").read_text() == "mine\n"
    assert f"{machine}: {one}/small: ".encode() in again.stderr
    said = place.bad("backup", "cat", machine, "latest", "/nope", code=1)
    assert "stead backup browse" in said


def test_several_paths_go_with_one_order(place: Place, machine: str) -> None:
    source = place.directory / "several"
    (source / "one" / "below").mkdir(parents=True)
    (source / "two").mkdir()
    for name in ("one/a", "one/below/b", "two/a", "c"):
        (source / name).write_text(name)
    place.good("backup", "run", machine, "--path", str(source))
    before = {row["job"] for row in place.rows("job", "ls")}
    paths = (f"{source}/one", f"{source}/two/a", f"{source}/c")
    words = ("backup", "restore", machine, "latest", *paths)
    back = place.directory / "several-back"
    back.mkdir()
    (seen,) = place.rows(*words, "--to", str(back), "--dry-run")
    assert (seen["create"], list(back.iterdir())) == (6, [])
    (done,) = place.rows(*words, "--to", str(back))
    assert (done["files"], done["targets"]) == (4, [f"{back}/one", f"{back}/a", f"{back}/c"])
    assert (back / "one/below/b").read_text() == "one/below/b"
    assert (back / "a").read_text() == "two/a"
    assert len({row["job"] for row in place.rows("job", "ls")} - before) == 2
    twice = (*words[:4], f"{source}/one/a", f"{source}/two/a", "--to", str(back))
    assert "would both become" in place.bad(*twice, code=2)
    around = (*words[:4], "/", f"{source}/one/a", "--to", str(back))
    assert "would both become" in place.bad(*around, code=2)
    (source / "two/a").write_text("mine")
    (source / "c").unlink()
    (done,) = place.rows(*words, "--in-place")
    assert (done["files"], done["same"], done["target"]) == (2, 2, f"{source}/one")
    assert (source / "two/a").read_text() == "two/a"
    (source / "two/a").unlink()
    (source / "two/a").mkdir()
    stuck = place.stead(*words, "--in-place")
    assert stuck.returncode == 3, stuck
    assert f"{machine}: {source}/two/a: ".encode() in stuck.stderr


def test_what_is_extra_is_removed_when_the_rules_are_known(place: Place, machine: str) -> None:
    source = place.directory / "exact"
    (source / "sub").mkdir(parents=True)
    for name in ("kept", "sub/kept", "sub/left.log"):
        (source / name).write_text(name)
    place.good("backup", "set", machine, "--path", str(source), "--exclude", "*.log")
    place.good("backup", "run", machine)
    (source / "new/deep").mkdir(parents=True)
    (source / "new/deep/file").write_text("new")
    (source / "sub/new.log").write_text("left out")
    words = ("backup", "restore", machine, "latest", str(source), "--in-place", "--delete-extra")
    assert "Nobody is there to ask" in place.bad(*words, code=2)
    (seen,) = place.rows(*words, "--dry-run")
    assert seen["remove"] == 3
    assert 0 < seen["looked_at_ms"] <= time.time_ns() // 1_000_000
    listed = place.good(*words, "--dry-run")
    assert (source / "new/deep/file").exists()
    named = ("new/deep/file", "new/deep", "new")
    assert seen["remove_paths"] == [f"/exact/{name}" for name in named]
    assert "remove" in listed
    ran = place.stead(*words, "--yes", "--output", "json")
    (done,) = json.loads(ran.stdout)
    assert (done["removed"], done["kept"]) == (3, 2)
    assert b"not in the restore point, and left: 2, such as " in ran.stderr
    assert sorted(path.name for path in source.rglob("*")) == [
        "kept", "kept", "left.log", "new.log", "sub"
    ]  # fmt: skip
    # One of several parts has something in the way, so nothing goes in any.
    (source / "extra").touch()
    (source / "sub/kept").unlink()
    (source / "sub/kept/mine").mkdir(parents=True)
    parts = (*words[:4], f"{source}/kept", f"{source}/sub", "--in-place", "--delete-extra")
    (source / "sub/too").touch()
    for ending in (("--dry-run",), ("--yes",)):
        stuck = place.stead(*parts, *ending)
        assert b"nothing was removed: 1 thing could not be restored" in stuck.stderr
    assert stuck.returncode == 3
    assert (source / "sub/too").exists()
    (source / "sub/kept/mine").rmdir()
    (source / "sub/kept").rmdir()
    (done,) = place.rows(*parts, "--yes")
    assert (done["files"], done["same"], done["removed"]) == (1, 1, 1)
    assert (source / "extra").exists()
    own = ("backup", "restore", machine, "latest", f"{source}/kept", "--to")
    inside = str(place.directory / "m1/agent/new")
    refused = place.stead(*own, inside)
    assert refused.returncode == 1
    assert b"is the agent's own" in refused.stderr
    assert not (place.directory / "m1/agent/new").exists()
    without = ("backup", "restore", machine, "latest", str(source), "--to", "/x", "--delete-extra")
    assert "goes with --in-place" in place.bad(*without, code=2)
    place.good("backup", "set", machine, "--path", str(source))
    refused = place.stead(*words, "--yes")
    assert refused.returncode == 1, refused
    assert b"order that set again with `stead backup set`" in refused.stderr
    assert (source / "sub/new.log").exists()


def test_a_machine_that_burned_down_is_restored_onto_another(place: Place, machine: str) -> None:
    source = place.directory / "burned"
    source.mkdir()
    (source / "file").write_text("still here\n")
    place.good("backup", "run", machine, "--path", str(source))
    token = place.good("token", "new", "--tenant", "acme", "--tag", "spare")
    argv = [*AGENT, "--home", str(place.directory / "m3")]
    enroll = [*argv, "enroll", "--token", "-"]
    subprocess.run(enroll, input=token.encode(), check=True, capture_output=True, timeout=WAIT_S)
    (spare,) = (row["name"] for row in place.rows("machine", "ls", "tag:spare"))
    back = place.directory / "phoenix"
    words = ("backup", "restore", machine, "latest", str(source), "--to", str(back))
    assert "never held a link" in place.bad(*words, "--onto", spare, code=1)
    agent = started([*argv, "run"], place.directory / "agent3.log")
    try:
        place.good("run", spare, "--", "true")
        place.good(*words, "--onto", spare)
        assert (back / "burned" / "file").read_text() == "still here\n"
    finally:
        assert stopped(agent) == 0
    place.good("machine", "revoke", spare, "--yes")


def test_what_cannot_be_read_is_named_and_exits_3(place: Place, machine: str) -> None:
    here = place.directory / "here"
    here.mkdir()
    gone = place.directory / "gone"
    done = place.stead("backup", "run", machine, "--path", str(here), "--path", str(gone))
    assert done.returncode == 3, done
    assert str(gone).encode() in done.stderr
