"""Control groups as the agent writes them, on a directory with the files that a kernel offers.

What a kernel makes of them is `test_process`'s to try, as far as this machine's has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host import group
from agent.host.process import started
from protocol.ids import make_id
from protocol.limits import Limits

FILES = ("cgroup.procs", "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max")
LIMITS = Limits(memory_bytes=64 * 1024 * 1024, cpu_percent=150)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(group, "base", lambda: tmp_path)
    return make_id("ts", at_ms=1, random=os.urandom(10))


def made(task: str, *names: str) -> Path:
    """A task's group with these files."""
    path = group.group_of(task)
    assert path is not None
    path.mkdir()
    for name in names:
        (path / name).touch()
    return path


async def missed(task: str) -> tuple[str, ...]:
    async with started(("true",), on_output=lambda *_: None, task=task, limits=LIMITS) as child:
        assert await child.exited == 0
    return child.missed


async def test_limits_are_written_into_the_group_that_the_program_is_in(task: str) -> None:
    path = made(task, *FILES)
    assert await missed(task) == ()
    written = {name: (path / name).read_text() for name in FILES}
    assert written.pop("cgroup.procs").isdecimal()
    assert written == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "150000 100000",
    }


async def test_without_an_account_of_swap_memory_is_limited_all_the_same(task: str) -> None:
    path = made(task, *(name for name in FILES if name != "memory.swap.max"))
    assert await missed(task) == ()
    assert not (path / "memory.swap.max").exists()


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (("memory.max",), ["memory was"]),
        (("cpu.max",), ["the processor"]),
        (("cgroup.procs",), ["memory was", "the processor"]),
    ],
)
async def test_a_limit_whose_controller_is_not_there_is_said_to_be_missed(
    task: str, lacking: tuple[str, ...], said: list[str]
) -> None:
    made(task, *(name for name in FILES if name not in lacking))
    found = await missed(task)
    assert len(found) == len(said)
    assert all(words.startswith(begin) for words, begin in zip(found, said, strict=True))


@pytest.mark.parametrize(
    ("events", "ended"),
    [("low 0\noom 2\noom_kill 1\noom_group_kill 1\n", True), ("oom_kill 0\n", False), ("", False)],
)
def test_who_was_ended_for_memory_is_read_from_the_kernels_count(
    task: str, events: str, ended: bool
) -> None:
    (made(task) / "memory.events").write_text(events)
    assert group.ended_for_memory(task) is ended


def test_the_agent_hands_down_controllers_only_where_its_group_was_left_to_it(
    tmp_path: Path,
) -> None:
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("")
    assert group.settle_in(tmp_path) == ()
    assert not (tmp_path / group.OWN).exists()
    try:
        os.setxattr(tmp_path, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"not run: no extended attributes here: {error.strerror}")
    (tmp_path / group.OWN).mkdir()
    group.settle_in(tmp_path)
    assert (tmp_path / group.OWN / "cgroup.procs").read_text() == str(os.getpid())
    # A kernel answers with the names alone; a file keeps what was written last.
    assert control.read_text() == "+cpu"


def test_groups_that_nothing_is_in_are_removed(tmp_path: Path) -> None:
    (tmp_path / "stead.old").mkdir()
    (tmp_path / "stead.full").mkdir()
    (tmp_path / "stead.full" / "inside").touch()
    (tmp_path / "other").mkdir()
    group.settle_in(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "stead.full"]


async def test_what_a_task_left_running_keeps_its_group_until_it_ends(
    task: str, tmp_path: Path
) -> None:
    """Else a machine whose orders leave something gathers groups as long as its agent runs."""
    left = tmp_path / "stead.left"
    (left / "inside").mkdir(parents=True)
    async with started(("true",), on_output=lambda *_: None, task=task):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["stead.left"]
    (left / "inside").rmdir()
    async with started(("true",), on_output=lambda *_: None, task=task):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
def test_an_agent_starts_wherever_somebody_has_mounted_something(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/caf\xe9\r"
    Path(os.fsdecode(place)).mkdir()
    ask = (sys.executable, "-c", "from agent.host import group; print(group.base())")
    mounted = ("sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', place, *ask)
    told = subprocess.run(
        ["unshare", "--mount", *mounted], capture_output=True, timeout=60, check=True
    )
    assert told.stdout.decode().strip() == str(group.base())
