"""Start an ordered program on Linux and macOS: by a launcher that becomes it.

See `agent.host.launch` for why.
"""

from __future__ import annotations

import asyncio
import io
import marshal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agent.host import launch
from agent.host.environment import ENVIRONMENT
from agent.host.family import APART, end_group
from agent.host.group import group_of, leave_groups
from agent.host.process import KILLED_WITHIN_S, TASK_VARIABLE, Child, ProgramError
from protocol.errors import Code
from protocol.limits import Limits

assert sys.platform != "win32"

START_WITHIN_S = 30.0
"""How long a program may take to begin; what takes longer hangs on a dead file server."""

LAUNCHER = "stead-launch"
"""What lies beside the bundled agent to begin programs; see `packaging/linux/agent.spec`."""


@asynccontextmanager
async def begun(
    argv: Sequence[str],
    on_output: Callable[[int, bytes], None],
    environment: Mapping[str, str],
    directory: str,
    task: str,
    limits: Limits,
) -> AsyncIterator[Child]:
    """See `agent.host.process.started`. The program is in the task's control group where
    there can be one.
    """
    if sys.platform == "darwin":
        refuse_limits(limits)
    group = group_of(task) if task else None
    wish: launch.Wish = {
        "argv": list(argv),
        "environment": dict(environment),
        "directory": directory,
        "group": str(group or ""),
        "memory_bytes": limits.memory_bytes,
        "cpu_percent": limits.cpu_percent,
        "nice": limits.nice,
    }
    ours, theirs = socket.socketpair()
    with ours:
        child = await _launcher(theirs, on_output, task)
        try:
            child.missed = await _launched(ours, wish)
            yield child
        finally:
            end_group(child.pid)
            # Not for ever: what hangs in the kernel (a dead file server) dies when that ends.
            await asyncio.wait({child.exited}, timeout=KILLED_WITHIN_S)
            child.close()
            if task:
                leave_groups()


def refuse_limits(limits: Limits) -> None:
    """Raise UNSUPPORTED for what macOS holds nobody to: neither its `setrlimit` nor a group."""
    for wanted, words in (
        (limits.memory_bytes, "the memory of a program"),
        (limits.cpu_percent, "how much of a processor a program gets"),
    ):
        if wanted:
            raise ProgramError(
                f"macOS does not limit {words}; order it without that limit",
                code=Code.UNSUPPORTED,
            )


def launcher_argv(channel: int) -> tuple[str, ...]:
    """How a program is started that becomes another; see `agent.host.launch`."""
    if getattr(sys, "frozen", False):
        return (str(Path(sys.executable).with_name(LAUNCHER)), str(channel))
    # Neither its folder nor anybody's settings: it needs the standard library alone.
    return (sys.executable, "-I", "-S", launch.__file__, str(channel))


async def _launcher(
    theirs: socket.socket, on_output: Callable[[int, bytes], None], task: str
) -> Child:
    argv = launcher_argv(theirs.fileno())
    mark = {TASK_VARIABLE: task} if task else {}
    with theirs:
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: Child(on_output),
                *argv,
                env={**ENVIRONMENT, **mark},
                cwd="/",
                **APART,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            raise ProgramError(f"cannot start {argv[0]}: {error.strerror}") from error
    return child


async def _launched(ours: socket.socket, wish: launch.Wish) -> tuple[str, ...]:
    """Tell the launcher what to become, and wait until it has; what it could not enforce."""
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    name = wish["argv"][0][:200]
    said = b""
    try:
        async with asyncio.timeout(START_WITHIN_S):
            await loop.sock_sendall(ours, marshal.dumps(wish))  # type: ignore[arg-type]
            ours.shutdown(socket.SHUT_WR)
            while piece := await loop.sock_recv(ours, 65536):
                said += piece
    except TimeoutError:
        raise ProgramError(
            f"cannot start {name}: it did not begin within {START_WITHIN_S:g} s",
            code=Code.TIMED_OUT,
        ) from None
    except ConnectionError:
        said = b""  # it ended and has not even read
    except OSError as error:
        raise ProgramError(f"cannot start {name}: {error.strerror}") from error
    missed: tuple[str, ...] = ()
    for answer in _answers(said, name):
        missed += tuple(answer["missed"])
        if answer["part"]:
            # A missing program and a missing directory are both "No such file or directory".
            where = f"the directory {wish['directory'][:200]}: " * (answer["part"] == "directory")
            raise ProgramError(f"cannot start {name}: {where}{answer['reason']}")
    return missed


def _answers(said: bytes, name: str) -> Iterator[launch.Said]:
    """What a launcher said; UPGRADE_REQUIRED for one that does not speak as this release does."""
    told = io.BytesIO(said)
    try:
        while told.tell() < len(said):
            answer: launch.Said = marshal.load(told)  # noqa: S302 - the agent's own launcher's
            yield {"missed": answer["missed"], "part": answer["part"], "reason": answer["reason"]}
    except (EOFError, KeyError, TypeError, ValueError):
        said = b""
    if not said:
        raise ProgramError(
            f"cannot start {name}: what begins programs ended before; it is of another release "
            "when the agent's files were replaced, and then the agent begins anew by itself",
            code=Code.UPGRADE_REQUIRED,
        )
