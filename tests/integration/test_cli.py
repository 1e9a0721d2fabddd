"""The first quarter of an hour, as it is typed: real programs, a real controller and agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.place import AGENT, STEAD, WAIT_S, Place, machine, place, started

__all__ = ["machine", "place"]


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
    # Never nicer to the script than to whoever runs the tests.
    assert (row["stdout"], row["exit_code"]) == (f"{max(3, os.nice(0))}\n", 0)
    assert "--shell" in place.bad("script", machine, "-", code=2, stdin=b"echo?")
    assert "none of ours" in place.bad("script", machine, "-", code=2, stdin=b"#!/opt/sh\n")
    assert "is empty" in place.bad("script", machine, "-", "--shell", "sh", code=2, stdin=b"\n")


def test_nobody_is_asked_through_a_pipe(place: Place, machine: str) -> None:
    for words in (
        ("machine", "revoke", machine),
        ("machine", "retire", machine),
        ("job", "reject", "or_00000000000000000000000000"),
    ):
        assert "Nobody is there to ask" in place.bad(*words, code=2, stdin="y\n"), words
    assert place.rows("machine", "ls")[0]["state"] == "active"


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


def test_machines_are_tagged_and_renamed(place: Place, machine: str) -> None:
    place.good("machine", "tag", machine, "+web", "-office")
    assert place.rows("machine", "show", machine)["tags"] == ["web"]
    place.good("machine", "tag", machine, "+office")
    place.good("machine", "rename", machine, "renamed")
    assert place.rows("machine", "show", "renamed")["name"] == "renamed"
    place.good("machine", "rename", "renamed", machine)


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
