"""Programs are ended with everything that they started, and never waited for without end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host.process import TASK_VARIABLE, ProgramError, end_marked, started
from protocol.ids import make_id


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


SETUID = """
import asyncio, os, sys
from agent.host import process
process.KILLED_WITHIN_S = 0.2
async def main():
    os.setgroups([])
    os.setuid(65534)
    async with process.started((sys.argv[1], "3"), on_output=lambda *_: None) as child:
        await asyncio.sleep(0.2)
    print("went on")
asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
def test_a_program_that_became_another_users_is_not_waited_for(tmp_path: Path) -> None:
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("not run: the temporary directory takes no setuid programs")
    program = tmp_path / "sleep"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    program.chmod(0o4755)
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o111)
    ended = subprocess.run(
        [sys.executable, "-c", SETUID, str(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.stdout == "went on\n", ended.stderr
