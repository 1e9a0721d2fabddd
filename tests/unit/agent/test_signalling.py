"""A signal hits the process that was meant, and no other that has its number."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import psutil
import pytest

from agent.actions.processes import listed
from agent.host import by_pidfd, by_psutil, signalling
from agent.host.signalling import identity_of, signal_process
from protocol.errors import Code, SteadError


@pytest.fixture(params=[by_pidfd, by_psutil], ids=["pidfd", "psutil"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Both ways of knowing a process; that of Windows and macOS works on Linux, too."""
    module: ModuleType = request.param
    monkeypatch.setattr(signalling, "send", module.send)
    return module


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def test_a_process_is_ended_and_that_is_seen(
    process: subprocess.Popen[bytes], way: ModuleType
) -> None:
    assert signal_process(process.pid, way.identity_of(process.pid), "TERM", within_s=10)
    # psutil has collected the code already, as it may of a child of its own.
    assert process.wait(10) == (-signal.SIGTERM if way is by_pidfd else 0)


def test_who_does_not_end_is_said_not_to_have(
    process: subprocess.Popen[bytes], way: ModuleType
) -> None:
    assert not signal_process(process.pid, way.identity_of(process.pid), "CONT", within_s=0.05)
    assert process.poll() is None


def test_a_number_that_is_anothers_by_now_is_not_hit(process: subprocess.Popen[bytes]) -> None:
    ticks, _, boot = identity_of(process.pid).partition("-")
    for identity in (f"{int(ticks) - 1}-{boot}", f"{ticks}-00000000", "", ticks):
        with pytest.raises(SteadError, match="is another one by now") as caught:
            signal_process(process.pid, identity, "KILL", within_s=0)
        assert caught.value.code is Code.NOT_FOUND
    assert process.poll() is None


def test_what_psutil_takes_for_another_is_not_hit(process: subprocess.Popen[bytes]) -> None:
    found = by_psutil.identity_of(process.pid)
    for identity in (f"{int(found) - 1}", "", "x"):
        with pytest.raises(SteadError, match="is another one by now") as caught:
            by_psutil.send(process.pid, identity, "KILL", 0)
        assert caught.value.code is Code.NOT_FOUND
    assert process.poll() is None


def test_on_windows_to_end_and_to_rest_is_all_there_is(
    process: subprocess.Popen[bytes],
) -> None:
    known = psutil.Process(process.pid)
    acts = {name: by_psutil.act_of(known, name, "win32") for name in ("TERM", "KILL", "STOP")}
    assert acts["TERM"] == acts["KILL"] == known.kill
    for name in ("INT", "HUP", "QUIT", "USR1", "USR2"):
        with pytest.raises(SteadError, match=f"Windows has no {name}") as caught:
            by_psutil.act_of(known, name, "win32")
        assert caught.value.code is Code.UNSUPPORTED
    acts["STOP"]()
    stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert stopped is not None
    assert stopped.si_status == signal.SIGSTOP
    by_psutil.act_of(known, "CONT", "win32")()
    acts["KILL"]()
    assert process.wait(10) == -signal.SIGKILL


def test_whoever_is_above_the_agent_is_not_hit_by_psutil() -> None:
    above = psutil.Process().parents()
    for one in above:
        with pytest.raises(SteadError, match="nobody could reach") as caught:
            by_psutil.send(one.pid, by_psutil.identity_of(one.pid), "CONT", 0)
        assert caught.value.code is Code.DENIED


def test_a_process_that_is_gone_is_said_to_be(
    process: subprocess.Popen[bytes], way: ModuleType
) -> None:
    identity = way.identity_of(process.pid)
    process.kill()
    process.wait()
    with pytest.raises(SteadError, match="there is no process"):
        signal_process(process.pid, identity, "KILL", within_s=0)


@pytest.mark.parametrize("pid", [1, os.getpid(), os.getppid()], ids=["first", "own", "parent"])
def test_what_keeps_the_machine_reachable_is_not_hit(pid: int) -> None:
    with pytest.raises(SteadError, match="nobody could reach") as caught:
        signal_process(pid, identity_of(pid), "CONT", within_s=0)
    assert caught.value.code is Code.DENIED


def test_a_task_ends_no_process_that_has_the_number_of_one_of_its_own(
    process: subprocess.Popen[bytes],
) -> None:
    tick = by_pidfd.began(Path(f"/proc/{process.pid}/stat").read_bytes())
    created = psutil.Process(process.pid).create_time()
    assert not by_pidfd.end(process.pid, tick - 1)
    assert not by_psutil.end(process.pid, created - 0.01)
    assert process.poll() is None
    assert by_psutil.end(process.pid, created)
    assert process.wait(10) == -signal.SIGKILL
    assert not by_pidfd.end(process.pid, tick)
    assert not by_psutil.end(process.pid, created)
    with subprocess.Popen(["sleep", "600"]) as other:
        assert by_pidfd.end(other.pid, by_pidfd.began(Path(f"/proc/{other.pid}/stat").read_bytes()))
        assert other.wait(10) == -signal.SIGKILL


def test_a_thread_is_no_process() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(SteadError, match="there is no process") as caught:
            signal_process(thread.native_id, identity_of(thread.native_id), "CONT", within_s=0)
    finally:
        over.set()
        thread.join()
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("pid", [0, -1, 2**31])
def test_what_is_no_process_is_refused(pid: int) -> None:
    with pytest.raises(SteadError, match="is no process"):
        signal_process(pid, "1-1", "KILL", within_s=0)


@pytest.mark.parametrize("name", ["", "SIGKILL", "kill", "9", "SEGV"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(SteadError, match="is no signal"):
        signal_process(os.getpid(), "1-1", name, within_s=0)


def test_a_name_with_brackets_and_blanks_does_not_move_the_time_of_the_start(
    tmp_path: Path,
) -> None:
    fields = " ".join(["S", *map(str, range(4, 53))])
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) S 1 (b) {fields}\n")
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("0123abcd-4567\n")
    assert by_pidfd.identity_of(7, proc=tmp_path) == "22-0123abcd"


def test_a_process_whose_name_is_no_text_is_listed_with_the_others(tmp_path: Path) -> None:
    """Else whoever runs one hides all the others."""
    program = os.fsencode(tmp_path) + b"/caf\xe9\x1b[7m"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", os.fsdecode(program))
    with subprocess.Popen([program, "600"]) as running:
        rows = listed()
        running.kill()
    rows = msgspec.json.decode(msgspec.json.encode(rows))
    [found] = [row for row in rows if row["pid"] == running.pid]
    assert found["name"] == "caf\\xe9\\x1b[7m"


def test_processes_are_listed_without_their_arguments() -> None:
    with subprocess.Popen(["sleep", "600.125"]) as running:
        rows = listed()
        running.kill()
    [found] = [row for row in rows if row["pid"] == running.pid]
    assert (found["name"], found["parent"]) == ("sleep", os.getpid())
    assert found["identity"].partition("-")[0].isdecimal()
    assert "600.125" not in str(rows)
