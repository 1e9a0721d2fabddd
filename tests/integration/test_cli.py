"""The first quarter of an hour, as it is typed: real programs, a real controller and agent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentHome
from controller.authority.authority import load_certificate, load_key
from controller.authority.certificates import certify_operator
from controller.authority.keys import new_serial
from controller.cli.renewal import load_root
from controller.config import OperatorHome, RootHome
from protocol.identity import OperatorIdentity, Role
from protocol.tls import chain_pem
from tests.fakes.typed import typed

WAIT_S = 60


@dataclass(frozen=True)
class Place:
    """A home of its own with a controller, a tenant, and a machine whose agent runs."""

    directory: Path

    def stead(
        self, *words: str, home: str = "home", stdin: str | bytes = b"", apart: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Type a command; `apart` is in a process of its own."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        argv = ["--home", str(self.directory / home), *words]
        if not apart:
            return typed(argv, stdin=data, cwd=self.directory)
        return subprocess.run(
            [*STEAD, *argv],
            input=data,
            capture_output=True,
            timeout=WAIT_S,
            check=False,
            cwd=self.directory,
        )

    def good(self, *words: str, codes: tuple[int, ...] = (0,), **more: Any) -> str:
        done = self.stead(*words, **more)
        assert done.returncode in codes, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def rows(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        return json.loads(self.good(*words, "--output", "json", codes=codes))

    def bad(self, *words: str, code: int, **more: Any) -> str:
        done = self.stead(*words, **more)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        lines = [x for x in done.stderr.decode().splitlines() if x.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]


STEAD = [sys.executable, "-c", "from controller.cli.main import main; main()"]
AGENT = [sys.executable, "-m", "agent.cli"]


def started(argv: list[str], log: Path, **more: Any) -> subprocess.Popen[bytes]:
    with log.open("wb") as stderr:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, **more)


def stopped(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    code = process.wait(WAIT_S)
    if process.stdout is not None:
        process.stdout.close()
    return code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("quarter")
    place = Place(directory)
    ports = ("--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0")
    place.good("controller", "init", "--name", "127.0.0.1", *ports)
    controller = started(
        [*STEAD, "--home", str(directory / "home"), "controller", "serve"],
        directory / "controller.log",
    )
    try:
        assert controller.stdout is not None
        line = controller.stdout.readline().decode()
        # Ports were drawn: the profile is told which, as an administrator would.
        address = line.split()[1]
        (directory / "home" / "operator" / "config.toml").write_text(f'address = "{address}"\n')
        place.good("tenant", "add", "acme")
        token = place.good("token", "new", "--tenant", "acme", "--tag", "office")
        assert token.count("\n") == 1
        subprocess.run(
            [*AGENT, "--home", str(directory / "m1"), "enroll", "--token", "-"],
            input=token.encode(),
            check=True,
            capture_output=True,
            timeout=WAIT_S,
        )
        agent = started([*AGENT, "--home", str(directory / "m1"), "run"], directory / "agent.log")
        try:
            place.good("run", "all", "--timeout", "30s", "--", "true")
            yield place
        finally:
            assert stopped(agent) == 0
    finally:
        assert stopped(controller) == 0


@pytest.fixture(scope="module")
def machine(place: Place) -> str:
    (row,) = place.rows("machine", "ls")
    assert row["linked"]
    assert row["tags"] == ["office"]
    return str(row["name"])


def test_a_program_runs_with_its_output_and_its_end(place: Place, machine: str) -> None:
    assert place.good("run", machine, "--", "printf", "a b", apart=True) == "a b"
    cat = ("run", "tag:office", "--stdin", "-", "--", "cat")
    for apart in (True, False):
        assert place.stead(*cat, stdin=b"x\xff", apart=apart).stdout == b"x\xff"
    words = ("run", machine, "--", "sh", "-c", "echo no >&2; exit 3")
    done = place.stead(*words, apart=True)
    assert done.returncode == 1
    assert b"no\n" in done.stderr
    assert done.stdout == b""
    given = ("run", machine, "--env", "A=1", "-o", "json", "--", "sh", "-c", "echo $A; pwd")
    (row,) = json.loads(place.good(*given))
    assert (row["stdout"], row["exit_code"]) == ("1\n/\n", 0)
    assert place.rows("job", "show", "latest")["tasks"][0]["output"] == "1\n/\n"


def test_a_script_runs_by_its_interpreter_with_its_arguments_as_they_are(
    place: Place, machine: str
) -> None:
    script = place.directory / "script.txt"
    script.write_text('#!/bin/sh -eu\nprintf "%s|" "$@" "$A" "$-"; cat\nfalse\necho unreached\n')
    odd = ("$(id)", "a b", "*", "; echo x", "")
    words = ("script", machine, str(script), *odd, "--env", "A=$HOME", "--stdin", "-", "--", "-e")
    done = place.stead(*words, stdin=b"given", apart=True)
    assert done.returncode == 1, done.stderr
    *said, flags_and_input = done.stdout.decode().split("|")
    assert said[:-1] == [*odd, "-e", "$HOME"]
    assert set("eu") <= set(said[-1])
    assert flags_and_input == "given"
    listed = place.rows("job", "ls")[0]
    assert listed["summary"].startswith("run sh script script.txt ")
    python = ("script", machine, "-", "--shell", "python", "-o", "json", "--nice", "3")
    (row,) = json.loads(place.stead(*python, stdin=b"import os; print(os.nice(0))").stdout)
    assert (row["stdout"], row["exit_code"]) == ("3\n", 0)
    assert "--shell" in place.bad("script", machine, "-", code=2, stdin=b"echo?")
    assert "none of ours" in place.bad("script", machine, "-", code=2, stdin=b"#!/opt/sh\n")
    assert "is empty" in place.bad("script", machine, "-", "--shell", "sh", code=2, stdin=b"\n")


def test_services_are_listed_and_hostile_names_are_refused_by_the_machine(
    place: Place, machine: str
) -> None:
    if not (Path("/etc/init.d").is_dir() or Path("/run/systemd/system").is_dir()):
        pytest.skip("not run: nothing runs services here")
    rows = place.rows("service", "ls", machine)
    assert rows
    assert all({"machine", "name", "state", "start"} <= set(row) for row in rows)
    part = rows[0]["name"]
    some = place.rows("service", "ls", machine, "--name", part)
    assert part in {row["name"] for row in some}
    assert place.rows("service", "ls", machine, "--name", "no-such-part-of-a-name") == []
    (row,) = place.rows("service", "stop", machine, "*", codes=(1,))
    assert (row["outcome"], row["is"]) == ("failed", None)
    assert "cannot be the name of a service" in row["message"]
    (row,) = place.rows("service", "restart", machine, "no-such-service", codes=(1,))
    assert "no service 'no-such-service'" in row["message"]
    (row,) = place.rows("service", "stop", machine, "stead-agent", codes=(1,))
    assert "does not end itself" in row["message"]


def test_a_process_is_found_and_ended_and_no_other_in_its_place(place: Place, machine: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as running:
        try:
            rows = place.rows("process", "ls", machine, "--name", "sleep")
            (found,) = [row for row in rows if row["pid"] == running.pid]
            pid, _, identity = found["process"].partition(":")
            other = f"{pid}:1{identity}"
            (row,) = place.rows("process", "kill", machine, other, codes=(1,))
            assert "is another one by now" in row["message"]
            assert running.poll() is None
            assert "a number alone" in place.bad("process", "kill", machine, pid, code=2)
            (row,) = place.rows("process", "kill", machine, found["process"])
            assert row["state"] == "succeeded"
            assert running.wait(WAIT_S) == -signal.SIGTERM
        finally:
            running.kill()


def test_a_log_is_shown_by_time_and_nothing_of_it_is_lost_on_the_way(
    place: Place, machine: str
) -> None:
    log = place.directory / "app.log"
    log.write_bytes(b"2026-05-01T10:00:00Z old\n2026-05-02T10:00:00Z new \x1b[2J\xff\n")
    words = ("logs", machine, "--file", str(log))
    assert place.stead(*words, apart=True).stdout == log.read_bytes()
    since = place.stead(*words, "--since", "2026-05-02", apart=True)
    assert since.stdout == b"2026-05-02T10:00:00Z new \x1b[2J\xff\n"
    (row,) = json.loads(place.good(*words, "--lines", "1", "-o", "json"))
    assert row["stdout"].startswith("2026-05-02")
    assert "not both" in place.bad(*words, "--unit", "cron", code=2)
    done = place.stead("logs", machine, "--file", str(place.directory / "none"), apart=True)
    assert done.returncode == 1
    assert b"is not there" in done.stderr
    nothing = place.stead(*words, "--since", "2026-05-03", apart=True)
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert b"there is no such line" in nothing.stderr
    (place.directory / "app.log.1.gz").write_bytes(b"\x1f\x8bno")
    part = place.stead(*words, apart=True)
    assert (part.returncode, part.stdout) == (3, log.read_bytes())
    assert b"app.log.1.gz cannot be read whole" in part.stderr


def test_a_log_is_followed_until_ctrl_c_which_ends_it_on_the_machine(
    place: Place, machine: str
) -> None:
    log = place.directory / "grows.log"
    log.write_bytes(b"first\n")
    argv = [
        *STEAD,
        "--home",
        str(place.directory / "home"),
        "logs",
        machine,
        "--file",
        str(log),
        "--follow",
    ]
    with started(argv, place.directory / "follow.err") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        with log.open("ab") as file:
            file.write(b"second\n")
        assert follower.stdout.readline() == b"second\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(WAIT_S) == 0
    assert "goes on" not in (place.directory / "follow.err").read_text()
    assert place.rows("job", "show", "latest")["action"] == "read_log"
    cancel, shown = place.rows("job", "ls", "--limit", "2")
    assert cancel["action"] == "cancel_order"
    (task,) = place.rows("job", "watch", shown["job"], codes=(1,))
    assert task["state"] == "cancelled"


def test_a_restart_is_shown_and_ordered_for_later_and_cancelled(place: Place, machine: str) -> None:
    before = place.rows("job", "ls")
    place.good("power", "reboot", machine, "--in", "7d", "--dry-run")
    assert place.rows("job", "ls") == before
    place.good("power", "reboot", machine, "--in", "7d", "--notice", "x", "--no-wait")
    place.good("power", "shutdown", machine, "--cancel")
    (row,) = place.rows("power", "reboot", machine, "--cancel")
    assert row["state"] == "cancelled"
    assert (
        "waits for its time" in place.stead("power", "reboot", machine, "--cancel").stderr.decode()
    )


def test_output_that_was_cut_is_said_beside_what_there_is(place: Place, machine: str) -> None:
    done = place.stead(
        "run", machine, "--", "sh", "-c", "yes | head -c 9000000; printf '\\033' >&2"
    )
    assert done.returncode == 0
    assert done.stdout == b"y\n" * 4 * 1024 * 1024
    assert b"the rest was cut off" in done.stderr


def test_a_dry_run_orders_nothing(place: Place, machine: str) -> None:
    before = place.rows("job", "ls")
    place.good("run", machine, "--dry-run", "--", "true")
    place.good("snapshot", "take", "all", "--dry-run")
    assert place.rows("job", "ls") == before


def test_what_failed_is_ordered_again_and_found_in_the_list(
    place: Place, machine: str, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    assert place.stead("run", machine, "--", "cat", str(there)).returncode == 1
    first = place.rows("job", "show", "latest")
    there.write_text("it is there now")
    place.good("job", "retry", first["job"])
    second = place.rows("job", "show", "latest")
    assert (second["retry_of"], second["tasks"][0]["output"]) == (first["job"], "it is there now")
    assert b"nothing to retry" in place.stead("job", "retry", second["job"], apart=True).stderr
    failed = place.rows("job", "ls", "--machine", machine, "--state", "failed", "--since", "1h")
    assert first["job"] in {row["job"] for row in failed}
    assert second["job"] not in {row["job"] for row in failed}
    (older,) = place.rows("job", "ls", "--before", second["job"], "--limit", "1")
    assert older["job"] == first["job"]
    assert place.rows("job", "ls", "--operator", "nobody") == []
    assert "no state" in place.bad("job", "ls", "--state", "well", code=2)


def test_batches_and_windows_are_options_of_what_acts(place: Place, machine: str) -> None:
    planned = place.good(
        "run", machine, "--batch", "1,100%", "--dry-run", "-o", "json", "--", "true"
    )
    assert [row["batch"] for row in json.loads(planned)] == [1]
    words = ("run", machine, "--batch", "1,100%", "--soak", "1s", "--window", "00:00-24:00")
    place.good(*words, "--", "true")
    job = place.rows("job", "show", "latest")
    assert job["rollout"]["phase"] == "over"
    assert job["windows"] == ["00:00-24:00"]
    assert "batches 1,100%, 1 s apart, 0 may fail" in place.good("job", "show", "latest")
    for wrong in (("--batch", "5"), ("--soak", "1m"), ("--window", "never"), ("--catch-up",)):
        place.bad("run", machine, *wrong, "--", "true", code=2)


def test_a_snapshot_shows_the_machine(place: Place, machine: str) -> None:
    place.good("snapshot", "take", "all", codes=(0, 3))
    shown = place.rows("snapshot", "show", machine)
    assert shown["live"]["cpu_percent"] is not None
    assert shown["sections"]["cpu"]["threads"] > 0
    picture = place.good("snapshot", "show", machine)
    assert len(picture.splitlines()) <= 24
    assert f"{machine}  acme" in picture
    assert len(place.rows("inventory", "history", machine)) >= 1
    assert place.rows("inventory", "show", machine, "cpu")["sections"]["cpu"]["status"] == "ok"
    place.good("inventory", "diff", machine, "--since", "3d")
    assert "no inventory of that time" in place.bad(
        "inventory", "show", machine, "--at", "2020-01-01", code=1
    )


def test_machines_are_selected_by_what_is_in_them(place: Place, machine: str) -> None:
    place.good("snapshot", "take", machine)
    fits = "cpu.threads>=1 and memory<100t and not package:nobody-has-this"
    assert [row["name"] for row in place.rows("machine", "ls", fits)] == [machine]
    assert place.rows("machine", "ls", "memory<1k") == []
    assert place.good("run", fits, "--", "true") == ""
    # It was never scanned for updates, so nobody knows.
    for words in ("update:openssl", "not update:openssl"):
        unknown = place.stead("machine", "ls", words, apart=True)
        assert f"is not known of {machine}".encode() in unknown.stderr
    assert "write tag:pilot" in place.bad("machine", "ls", "group:pilot", code=2)
    assert "it is a size" in place.bad("machine", "ls", "memory<many", code=2)


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
    assert "nobody is there to ask" in place.bad(*words, code=2)
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


def test_machines_are_tagged_and_renamed(place: Place, machine: str) -> None:
    place.good("machine", "tag", machine, "+web", "-office")
    assert place.rows("machine", "show", machine)["tags"] == ["web"]
    place.good("machine", "tag", machine, "+office")
    place.good("machine", "rename", machine, "renamed")
    assert place.rows("machine", "show", "renamed")["name"] == "renamed"
    place.good("machine", "rename", "renamed", machine)


def test_the_log_is_whole_and_a_noted_head_is_found_in_it(place: Place) -> None:
    logs = {row["log"]: row for row in place.rows("audit", "verify")}
    assert {row["state"] for row in logs.values()} == {"ok"}
    head = logs["acme"]["head"]
    place.good("run", "all", "--", "true")
    place.good("audit", "verify", "--tenant", "acme", "--head", head)
    number, _ = head.split(":")
    (row,) = place.rows(
        "audit", "verify", "--tenant", "acme", "--head", f"{number}:{'0' * 64}", codes=(1,)
    )
    assert row["state"] == "damaged"
    assert f"entry {number}" in row["reason"]
    assert "order_submitted" in place.good("audit", "ls", "--tenant", "acme")


def test_keys_leave_and_come_back(place: Place) -> None:
    paper = place.good("tenant", "key", "export", "acme", "--paper")
    saved = place.directory / "acme.key"
    place.good("tenant", "key", "export", "acme", "--to", str(saved))
    assert saved.stat().st_mode & 0o777 == 0o600
    place.bad("tenant", "key", "export", "acme", "--to", str(saved), code=1)
    (kept,) = (place.directory / "home" / "operator" / "tenants").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()
    assert "stead tenant key share" in place.bad("token", "new", "--tenant", "acme", code=1)
    place.bad("tenant", "key", "import", "acme", "-", stdin="0" * 60, code=2)
    place.good("tenant", "key", "import", "acme", "-", stdin=paper.lower())
    assert kept.read_bytes() == saved.read_bytes()


def test_an_operator_does_what_the_role_allows_and_no_more(place: Place, machine: str) -> None:
    words = ("operator", "add", "eve", "--role", "helpdesk", "--tenant", "acme", "--to", "eve")
    place.good(*words, "--with-keys")
    assert f'"{machine}"' in place.good("machine", "ls", "--output", "jsonl", home="eve")
    place.good("snapshot", "take", machine, home="eve", codes=(0, 3))
    place.good("process", "ls", machine, home="eve")
    assert "may not order read_log" in place.bad("logs", machine, home="eve", code=4)
    place.bad("service", "start", machine, "cron", home="eve", code=4)
    assert "may not order run_program" in place.bad(
        "run", machine, "--", "true", home="eve", code=4
    )
    for dry in (
        ("run", machine, "--dry-run", "--", "true"),
        ("power", "reboot", machine, "--dry-run"),
    ):
        assert "may not order" in place.bad(*dry, home="eve", code=4)
    # The latest job is the latest of one's own.
    place.good("run", machine, "--", "true")
    assert place.rows("job", "show", "latest")["action"] == "run_program"
    own = json.loads(place.good("job", "show", "latest", "-o", "json", home="eve"))
    assert own["action"] == "list_processes"
    place.bad("token", "new", home="eve", code=4)
    (planned,) = place.rows("operator", "revoke", "eve", "--dry-run")
    assert (planned["name"], planned["version"]) == ("eve", 1)
    place.bad("operator", "revoke", "eve", "--yes", "--root", "nowhere", code=1)
    place.bad("operator", "revoke", "admin", "--yes", code=1)
    place.good("operator", "revoke", "eve", "--yes")
    (told,) = place.rows("operator", "revocations")
    assert (told["name"], told["version"]) == ("eve", 1)
    place.good("run", machine, "--", "true")
    kept = AgentHome(place.directory / "m1" / "agent").revocations
    assert (
        kept.read_bytes()
        == OperatorHome(place.directory / "home" / "operator").revocations.read_bytes()
    )
    place.bad("machine", "ls", home="eve", code=4)


def test_an_ended_operator_is_renewed_without_a_controller_and_believed(
    place: Place, machine: str
) -> None:
    late = OperatorHome(place.directory / "late" / "operator")
    shutil.copytree(place.directory / "home" / "operator", late.path)
    root = RootHome(place.directory / "home" / "root")
    begun = datetime.now(UTC) - timedelta(days=400)
    ended = certify_operator(
        load_root(root, datetime.now(UTC)),
        load_key(late.key).public_key(),
        OperatorIdentity("admin", Role.ADMIN, None),
        serial=new_serial(),
        now=begun,
    )
    late.certificate.write_bytes(chain_pem([ended]))
    assert "stead operator renew" in place.bad("machine", "ls", home="late", code=4)
    place.bad("operator", "renew", "--root", "nowhere", home="late", code=1)
    place.bad("operator", "renew", "eve", "--root", str(root.path), home="late", code=2)
    place.good("operator", "renew", "admin", "--root", str(root.path), home="late")
    listed = json.loads(place.good("operator", "ls", "-o", "json", home="late"))
    end = load_certificate(late.certificate).not_valid_after_utc
    (admin,) = [one for one in listed if one["name"] == "admin"]
    assert datetime.fromisoformat(admin["ends_at"]) == end
    assert place.good("run", machine, "--", "printf", "again", home="late") == "again"


def test_several_machines_are_not_touched_unasked(place: Place) -> None:
    token = place.good("token", "new", "--tenant", "acme")
    argv = [*AGENT, "--home", str(place.directory / "m2"), "enroll", "--token", "-"]
    subprocess.run(argv, input=token.encode(), check=True, capture_output=True, timeout=WAIT_S)
    assert "add --yes" in place.bad("run", "all", "--", "true", code=2)
    done = place.stead("run", "all", "--yes", "--no-wait", "-o", "json", "--", "true")
    (row,) = json.loads(done.stdout)
    assert row["machines"] == 2
    assert b"not linked" not in done.stderr
    cancelled = place.stead("job", "cancel", row["job"], "-o", "json")
    assert "cancelled" in {task["state"] for task in json.loads(cancelled.stdout)}
    active = [row for row in place.rows("machine", "ls") if row["state"] == "active"]
    (second,) = [row["name"] for row in active if not row["linked"]]
    late = place.stead("run", second, "--deliver-by", "1s", "--", "true")
    assert late.returncode == 5, late
    assert b"expired" in late.stderr
    assert late.stderr.count(f"{second} is not linked; waits until ".encode()) == 1
    place.good("machine", "revoke", second, "--yes")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "nobody", "--", "true"), 1, "stead machine ls"),
        (("run", "tag:nobody", "--", "true"), 1, "no active machine"),
        (("run", "tag:", "--", "true"), 2, "lacks a value"),
        (("tenant", "show", "nobody"), 1, "stead tenant ls"),
        (("job", "show", "or_nobody"), 1, "stead job ls"),
        (("backup", "ls", "nobody"), 1, "stead machine ls"),
        (("operator", "revoke", "nobody", "--yes"), 1, "stead operator ls"),
    ],
)
def test_what_is_not_there_is_said_with_the_next_step(
    place: Place, words: tuple[str, ...], code: int, said: str
) -> None:
    assert said in place.bad(*words, code=code)


def test_a_controller_that_is_not_there_exits_6(place: Place) -> None:
    assert "is the controller running" in place.bad(
        "--controller", "127.0.0.1:9", "machine", "ls", code=6
    )


def test_the_index_is_made_anew_only_when_the_controller_is_stopped(place: Place) -> None:
    assert "stop that controller first" in place.bad("vault", "rebuild", code=1)


def test_a_profile_of_another_installation_is_told_from_an_outage(
    place: Place, tmp_path: Path
) -> None:
    other = Place(tmp_path)
    other.good("controller", "init", "--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0")
    address = (place.directory / "home" / "operator" / "config.toml").read_text().split('"')[1]
    assert "another installation" in other.bad("--controller", address, "tenant", "ls", code=1)
