"""Becomes an ordered program: enters the task's control group, takes on its limits, and execs.

A program must be in its group before it runs its first instruction, or what it forks at
once escapes. This runs in the child, as a program of its own and with the standard library
alone, because code of ours between fork and exec would run beside the agent's own threads.

Its only argument is a socket. On it comes a `Wish` up to the end; back goes a `Said` before
the program is started, another one when it could not be, and the end. Who hears nothing before
the end knows that this was no launcher of its release. Both are marshalled: the two ends are
one release on one machine.

Every order waits for this to start, so it imports as little as may be: json, contextlib and
typing alone took as long as the interpreter.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
import sys

assert sys.platform != "win32"

import resource  # noqa: E402 - Windows has none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Wish(TypedDict):
        """What is to be started. `group` is a directory, empty when there can be none."""

        argv: list[str]
        environment: dict[str, str]
        directory: str
        group: str
        memory_bytes: int
        cpu_percent: int
        nice: int

    class Said(TypedDict):
        """Limits that could not be enforced, for people; what could not be started, and why.

        `part` is "directory" or "program", empty when it was started.
        """

        missed: list[str]
        part: str
        reason: str


_TRIES = 100
_CPU_PERIOD_US = 100_000


def launch(channel: int) -> NoReturn:
    """Be the program that the socket `channel` names, or say why not and end with 127."""
    os.set_inheritable(channel, False)
    with os.fdopen(os.dup(channel), "rb") as asked:
        wish: Wish = marshal.loads(asked.read())  # noqa: S302 - the agent's own
    # Where the interpreter ignores a signal, the program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    missed = confine(wish)
    part = "directory"
    try:
        os.chdir(wish["directory"])
        part = "program"
        _say(channel, {"missed": missed, "part": "", "reason": ""})
        os.execvpe(wish["argv"][0], wish["argv"], wish["environment"])  # noqa: S606
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        _say(channel, {"missed": [], "part": part, "reason": reason or str(error)})
    os._exit(127)


def _say(channel: int, said: Said) -> None:
    os.write(channel, marshal.dumps(said))  # type: ignore[arg-type]


def confine(wish: Wish) -> list[str]:
    """Enter the group and take on the limits; what could not be enforced, for people."""
    missed = []
    group = enter(wish) if wish["group"] else ""
    memory, percent, nice = wish["memory_bytes"], wish["cpu_percent"], wish["nice"]
    if memory and not (group and _limit_memory(group, memory)):
        missed.append(_each_alone(memory))
    if percent and not (group and _limit_cpu(group, percent)):
        missed.append(
            f"the processor was not limited to {percent} %, which takes a control group with "
            "the cpu controller"
        )
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    return missed


def enter(wish: Wish) -> str:
    """Make the group if need be, and enter it; empty when that cannot be."""
    group = wish["group"]
    for _ in range(_TRIES):
        try:
            if not os.path.isdir(group):  # noqa: PTH112
                os.mkdir(group)  # noqa: PTH102
            _write(group, "cgroup.procs", str(os.getpid()))
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EEXIST}:
                return ""
            continue  # somebody made the group, or tidied it away empty, in between
        return group
    return ""


def _limit_memory(group: str, limit: int) -> bool:
    try:
        # What is swapped out is memory, too; a kernel without that account has no such file.
        if os.path.exists(os.path.join(group, "memory.swap.max")):  # noqa: PTH110, PTH118
            _write(group, "memory.swap.max", "0")
        # The family lives or dies together: half a program is no program.
        _write(group, "memory.oom.group", "1")
        _write(group, "memory.max", str(limit))
    except OSError:
        return False
    return True


def _limit_cpu(group: str, percent: int) -> bool:
    try:
        _write(group, "cpu.max", f"{percent * _CPU_PERIOD_US // 100} {_CPU_PERIOD_US}")
    except OSError:
        return False
    return True


def _each_alone(limit: int) -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit <= hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return (
        f"memory was limited to {limit} bytes for each process alone and not for all together, "
        "which takes a control group with the memory controller"
    )


def _write(group: str, name: str, value: str) -> None:
    # Never made: a file that the kernel does not offer is an error.
    number = os.open(os.path.join(group, name), os.O_WRONLY)  # noqa: PTH118
    try:
        os.write(number, value.encode())
    finally:
        os.close(number)


if __name__ == "__main__":
    launch(int(sys.argv[1]))
