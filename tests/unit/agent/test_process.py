"""Programs are ended with everything that they started, and never waited for without end."""

from __future__ import annotations

import asyncio
import marshal
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from agent.host import launching, process
from agent.host.by_psutil import with_mark
from agent.host.group import group_of, parse_own_group
from agent.host.launching import launcher_argv
from agent.host.marked import end_marked
from agent.host.process import TASK_VARIABLE, ProgramError, run, started
from protocol.errors import Code
from protocol.ids import make_id
from protocol.limits import Limits


def task() -> str:
    return make_id("ts", at_ms=1, random=os.urandom(10))


async def said(path: Path) -> int:
    """The process id that a program wrote into a file."""
    async with asyncio.timeout(10):
        while not path.exists() or not path.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    return int(path.read_text())


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


@pytest.mark.parametrize(
    "launcher",
    [("true",), ("false",), ("sh", "-c", "echo '{}' >&$0"), ("sh", "-c", "echo x >&$0")],
)
async def test_a_launcher_of_another_release_is_no_program_that_ended(
    launcher: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "launcher_argv", lambda channel: (*launcher, str(channel)))
    with pytest.raises(ProgramError) as caught:
        async with started(("true",), on_output=lambda *_: None):
            pass
    assert caught.value.code is Code.UPGRADE_REQUIRED


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while lives(pid):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("before", ["setsid", "env -i setsid", f"env -u {TASK_VARIABLE} setsid"])
async def test_what_leaves_its_group_and_its_environment_is_ended_with_its_task(
    before: str, tmp_path: Path
) -> None:
    mark, told = task(), tmp_path / "pid"
    script = f"{before} sh -c 'echo $$ > {told}; exec sleep 600' & wait"
    async with started(("sh", "-c", script), on_output=lambda *_: None, task=mark):
        escaped = await said(told)
        assert end_marked(mark) >= 1  # the other one may end by itself before it is killed
    await until_gone(escaped)


async def test_psutil_finds_the_mark_of_a_task_as_proc_does(tmp_path: Path) -> None:
    mark, told = task(), tmp_path / "pid"
    script = f"echo $$ > {told}; exec sleep 600"
    async with started(("sh", "-c", script), on_output=lambda *_: None, task=mark) as child:
        pid = await said(told)
        found = {one.pid: one.parent for one in with_mark(TASK_VARIABLE, mark) if one.has_mark}
        assert pid == child.pid
        assert found == {pid: os.getpid()}


async def test_another_tasks_programs_are_left_alone(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"echo $$ > {told}; exec sleep 600"
    async with started(("sh", "-c", script), on_output=lambda *_: None, task=task()):
        other = await said(told)
        assert end_marked(task()) == 0
        assert lives(other)


async def test_a_program_whose_name_looks_like_a_state_is_found(tmp_path: Path) -> None:
    mark, told = task(), tmp_path / "pid"
    odd = tmp_path / ") Z 1 ("
    shutil.copy(shutil.which("sleep") or "/bin/sleep", odd)
    script = f"setsid sh -c 'echo $$ > {told}; exec \"{odd}\" 600' & wait"
    async with started(("sh", "-c", script), on_output=lambda *_: None, task=mark):
        pid = await said(told)
        end_marked(mark)
    await until_gone(pid)


@pytest.mark.parametrize(
    ("argv", "directory", "message"),
    [
        ("no-such-program", "/", "cannot start no-such-program: No such file or directory"),
        ("true", "/nowhere", "cannot start true: the directory /nowhere: No such file"),
        ("/etc/passwd", "/", "cannot start /etc/passwd: Permission denied"),
    ],
)
async def test_what_could_not_be_started_says_which_part_is_missing(
    argv: str, directory: str, message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        async with started((argv,), on_output=lambda *_: None, cwd=directory):
            pass


OTHER_USER = """
import asyncio, os
from agent.host import process
process.KILLED_WITHIN_S = 0.2
async def main():
    async with process.started(("sleep", "3"), on_output=lambda *_: None) as child:
        os.setgroups([])
        os.setuid(65534)
    print("went on")
asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
def test_a_program_that_is_another_users_is_not_waited_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OTHER_USER],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.stdout == "went on\n", ended.stderr


ESCAPE = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
stay = ("import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True); "
    "time.sleep(600)")
os.execve(sys.executable, [sys.executable, "-c", stay, sys.argv[1]], {})
"""
"""Forks twice, begins a session of its own, and carries nothing of its environment."""

in_groups = pytest.mark.skipif(
    group_of("try") is None, reason="not run: there are no control groups to be made here"
)


@in_groups
async def test_a_daemon_without_parent_session_or_environment_is_ended_with_its_task(
    tmp_path: Path,
) -> None:
    mark, told = task(), tmp_path / "pid"
    argv = (sys.executable, "-c", ESCAPE, str(told))
    async with started(argv, on_output=lambda *_: None, task=mark) as child:
        escaped = await said(told)
        assert await child.exited == 0
        stat = Path(f"/proc/{escaped}/stat").read_text().rpartition(") ")[2].split()
        assert int(stat[3]) != child.pid  # its session
        assert mark.encode() not in Path(f"/proc/{escaped}/environ").read_bytes()
        assert end_marked(mark) == 1
        assert not lives(escaped)
    group = group_of(mark)
    assert group is not None
    assert not group.exists()


@in_groups
async def test_what_a_task_leaves_running_is_left_and_found_again_later(tmp_path: Path) -> None:
    mark, told = task(), tmp_path / "pid"
    argv = (sys.executable, "-c", ESCAPE, str(told))
    async with started(argv, on_output=lambda *_: None, task=mark) as child:
        escaped = await said(told)
        await child.exited
    assert lives(escaped)
    assert end_marked(mark) == 1
    assert not lives(escaped)
    group = group_of(mark)
    assert group is not None
    group.rmdir()


def ignored_here() -> int:
    """The signals that this process ignores, which whoever started it may have chosen."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("SigIgn:")]
    return int(line.split()[1], 16)


async def test_a_program_begins_with_the_signals_and_the_environment_that_it_would_have_alone() -> (
    None
):
    printed = bytearray()
    of_python = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert ignored_here() & of_python == of_python
    argv = ("sh", "-c", "env; grep SigIgn /proc/self/status; ls /proc/self/fd | wc -l")
    async with started(argv, on_output=lambda _, data: printed.extend(data)) as child:
        await child.exited
        await child.drained
    *environment, ignored, descriptors = printed.decode().splitlines()
    assert {line.partition("=")[0] for line in environment} <= {
        "PATH",
        "LC_ALL",
        "LANG",
        "PWD",
        "_",
    }
    assert int(ignored.split()[1], 16) == ignored_here() & ~of_python
    assert int(descriptors) == 4  # three, and the one that `ls` reads the directory by


async def test_limits_are_taken_on_and_what_is_missed_is_said() -> None:
    printed = bytearray()
    argv = ("sh", "-c", "nice; grep 'Max address' /proc/self/limits")
    limits = Limits(memory_bytes=256 * 1024 * 1024, cpu_percent=50, nice=7)
    async with started(
        argv, on_output=lambda _, data: printed.extend(data), limits=limits
    ) as child:
        assert await child.exited == 0
        await child.drained
    nice, address = printed.decode().splitlines()
    # Never nicer to the program than to whoever runs it.
    assert int(nice) == max(7, os.getpriority(os.PRIO_PROCESS, 0))
    # Without a task there is no group: each process is held alone, and that is said.
    assert address.split()[3:5] == ["268435456", "268435456"]
    assert [words.split(" was")[0] for words in child.missed] == ["memory", "the processor"]


@pytest.mark.parametrize(
    ("groups", "mounts", "found"),
    [
        ("0::/\n", "1 0 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup"),
        ("4:memory:/x\n0::/a/b\n", "1 0 0:2 /a /cg rw x:1 y:2 - cgroup2 c rw", "/cg/b"),
        ("0::/ab\n", "1 0 0:2 /a /cg rw - cgroup2 c rw", None),
        ("0::/../other\n", "1 0 0:2 / /cg rw - cgroup2 c rw", None),
        ("4:memory:/x\n", "1 0 0:2 / /cg rw - cgroup2 c rw", None),
        ("0::/x\n", "1 0 0:2 / /cg rw - cgroup cgroup rw,memory", None),
        (
            "0::/x\n",
            "1 0 0:1 / /a\udcff\r rw - tmpfs x rw\n2 0 0:2 / /cg rw - cgroup2 c rw",
            "/cg/x",
        ),
    ],
)
def test_the_own_group_is_found_where_it_is_mounted(
    groups: str, mounts: str, found: str | None
) -> None:
    path = parse_own_group(os.fsencode(groups), os.fsencode(mounts))
    assert path == (None if found is None else Path(found))


async def test_words_that_are_no_text_reach_the_program_as_they_are() -> None:
    printed = bytearray()
    word = b"\xff\xfe caf\xc3\xa9".decode(errors="surrogateescape")
    argv = ("sh", "-c", 'printf "%s|%s" "$1" "$WORD"', "sh", word)
    async with started(
        argv, on_output=lambda _, data: printed.extend(data), env={"WORD": word}
    ) as child:
        assert await child.exited == 0
        await child.drained
    assert bytes(printed) == b"\xff\xfe caf\xc3\xa9|\xff\xfe caf\xc3\xa9"


async def test_a_launcher_that_is_not_told_what_to_start_starts_nothing() -> None:
    whole = marshal.dumps({"argv": ["true"], "environment": {}, "directory": "/"})
    for cut in (0, 1, len(whole) - 1):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(whole[:cut])
            ours.shutdown(socket.SHUT_WR)
            process = await asyncio.create_subprocess_exec(
                *launcher_argv(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert await process.wait() == 1


async def test_what_is_printed_when_a_program_has_just_ended_is_read() -> None:
    got = bytearray()
    # A number in sh is that of the program itself, also in what it leaves running.
    then = "while kill -0 $$ 2>&-; do sleep 0.01; done; echo late"
    async with started(
        ("sh", "-c", f"({then}) & echo soon"), on_output=lambda _, data: got.extend(data)
    ) as child:
        child.give(b"", end=True)
        assert await child.ended(timedelta(minutes=1)) == 0
        assert got == b"soon\nlate\n"


async def test_whose_time_is_up_has_no_code() -> None:
    off: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with started(("sleep", "600"), on_output=lambda *_: None) as child:
        assert await child.ended(timedelta(milliseconds=10)) is None
        off.set_result("eve")
        assert await child.ended(timedelta(days=1), off) is None


def held_open(folder: Path, then: str) -> tuple[str, ...]:
    """A program that leaves one running, in a session of its own, which holds its output open."""
    return ("sh", "-c", f"setsid sh -c 'echo $$ > {folder}/pid; exec sleep 600' & {then}")


def end_left(folder: Path) -> None:
    """End it; a program whose time was up early may not have come to leave it."""
    told, tries = folder / "pid", 500
    while tries and not (told.exists() and told.read_text().endswith("\n")):
        time.sleep(0.01)
        tries -= 1
    if tries:
        os.kill(int(told.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("heard", [False, True])
def test_who_leaves_something_running_has_ended(heard: bool, tmp_path: Path) -> None:
    got = bytearray()
    then = f"while ! test -s {tmp_path}/pid; do sleep 0.02; done; echo out; echo err >&2; exit 3"
    on_output = got.extend if heard else None
    done = run(*held_open(tmp_path, then), timeout=600, on_output=on_output)
    end_left(tmp_path)
    assert (done.code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert sorted(got.split()) == ([b"err", b"out"] if heard else [])


@pytest.mark.parametrize("heard", [False, True])
def test_whose_time_is_up_is_not_waited_for_because_of_what_it_left(
    heard: bool, tmp_path: Path
) -> None:
    on_output = bytearray().extend if heard else None
    begun = f"while ! test -s {tmp_path}/pid; do sleep 0.02; done"
    with pytest.raises(ProgramError, match="did not end within 2 s") as caught:
        run(*held_open(tmp_path, f"{begun}; exec sleep 600"), timeout=2, on_output=on_output)
    end_left(tmp_path)
    assert caught.value.code is Code.TIMED_OUT


@pytest.mark.parametrize("heard", [False, True])
def test_who_reads_nothing_of_what_it_is_given_keeps_nobody_waiting(heard: bool) -> None:
    content = bytes(1024 * 1024)
    on_output = bytearray().extend if heard else None
    assert run("true", stdin=content, on_output=on_output).code == 0
    with pytest.raises(ProgramError, match="sleep did not end within"):
        run("sleep", "600", stdin=content, timeout=0.2, on_output=on_output)
    assert run("wc", "-c", stdin=content).stdout.strip() == b"1048576"


def test_of_what_has_no_end_no_beginning_is_taken_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_LIMIT_BYTES", 1000)
    with pytest.raises(ProgramError, match="yes printed more than 1000 bytes") as caught:
        run("yes")
    assert caught.value.code is Code.LIMIT


def test_of_what_is_passed_on_the_end_alone_is_kept() -> None:
    heard = 0

    def hear(data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    done = run("sh", "-c", "yes | head -c 10000000; echo; echo why >&2; exit 1", on_output=hear)
    assert heard == 10_000_005
    assert len(done.stdout) < 100_000
    with pytest.raises(ProgramError, match="sh ended with 1: why"):
        done.checked()
