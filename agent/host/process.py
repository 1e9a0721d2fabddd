"""The one place where the agent starts programs.

A program gets its own process group, so that a time-out or a cancel ends its
children too. Nothing goes through a shell, and nothing is inherited but what is
named here.
"""

from __future__ import annotations

import asyncio
import io
import marshal
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.host import launch
from agent.host.group import group_of, leave_group_of
from protocol.errors import Code, SteadError
from protocol.limits import NO_LIMITS, Limits

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
}
TASK_VARIABLE = "STEAD_TASK"
"""Tells in a program's environment for which task it was started."""

KILLED_WITHIN_S = 5.0
"""How long a killed program is waited for."""

START_WITHIN_S = 30.0
"""How long a program may take to begin; what takes longer hangs on a dead file server."""

LAUNCHER = "stead-launch"
"""What lies beside the bundled agent to begin programs; see `packaging/linux/agent.spec`."""

OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024


class ProgramError(SteadError):
    """A program could not be started, failed, or took too long."""

    code = Code.PRECONDITION


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. `code` is negative when a signal ended it."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    def checked(self) -> bytes:
        """The standard output of a program that succeeded; `ProgramError` otherwise."""
        if self.code != 0:
            said = self.stderr.decode(errors="replace").strip()[-500:]
            raise ProgramError(f"{self.argv[0]} ended with {self.code}: {said or 'no message'}")
        return self.stdout


class Run(Protocol):
    """Start a program, wait for it, and keep what it printed."""

    def __call__(
        self,
        *argv: str,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """`timeout` in seconds; `env` is added to a fixed, minimal environment.

        `on_output` gets pieces of standard output and standard error as they come.
        Raises `ProgramError` when the program is missing or the time is up.
        """


def run(
    *argv: str,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Finished:
    """See `Run`."""
    process = begin(argv, stdin=subprocess.PIPE, env=env)
    with process:
        try:
            if on_output is None:
                stdout, stderr = process.communicate(stdin, timeout=timeout)
            else:
                stdout, stderr = _pump(process, stdin, timeout, on_output)
        except subprocess.TimeoutExpired:
            end_group(process.pid)
            process.communicate()
            raise ProgramError(
                f"{argv[0]} did not end within {timeout:g} s", code=Code.TIMED_OUT
            ) from None
        except BaseException:
            end_group(process.pid)
            raise
    return Finished(tuple(argv), process.returncode, stdout, stderr)


def begin(
    argv: Sequence[str],
    *,
    stdin: int,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """A program in a group of its own. `stdin`, `stdout` and `stderr` as in `subprocess`.

    Raises `ProgramError` when it cannot be started.
    """
    full = {**ENVIRONMENT, **(env or {})}
    if task := os.environ.get(TASK_VARIABLE):
        full[TASK_VARIABLE] = task
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=full,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ProgramError(f"cannot start {argv[0][:200]}: {reason}") from error


def _pump(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    timeout: float,
    on_output: Callable[[bytes], None],
) -> tuple[bytes, bytes]:
    """Feed a program and pass on what it prints as it prints it."""
    import selectors
    import time

    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    kept: dict[int, bytearray] = {
        process.stdout.fileno(): bytearray(),
        process.stderr.fileno(): bytearray(),
    }
    process.stdin.write(stdin)
    process.stdin.close()
    with selectors.DefaultSelector() as selector:
        for number in kept:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, timeout)
            for key, _ in selector.select(left):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fd)
                    continue
                on_output(piece)
                if len(kept[key.fd]) < OUTPUT_LIMIT_BYTES:
                    kept[key.fd] += piece
    process.wait(max(deadline - time.monotonic(), 0.001))
    stdout, stderr = kept.values()
    return bytes(stdout), bytes(stderr)


def end_group(pid: int) -> None:
    """Kill a process group that `run` or `started` began, grandchildren included."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left, or all that is left has become another user's.
        return


class Child(asyncio.SubprocessProtocol):
    """A program in a process group of its own, whose output is passed on as it comes."""

    def __init__(self, on_output: Callable[[int, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self._on_output = on_output
        self._transport: asyncio.SubprocessTransport | None = None
        self._open = {1, 2}
        self.exited: asyncio.Future[int] = loop.create_future()
        """The exit code; negative when a signal ended it."""
        self.missed: tuple[str, ...] = ()
        """Which limits could not be enforced, for people."""
        self.drained: asyncio.Future[None] = loop.create_future()
        """Everything that was printed has been passed on."""

    @property
    def pid(self) -> int:
        """The program's process id, also its group's."""
        assert self._transport is not None
        return self._transport.get_pid()

    def give(self, content: bytes, *, end: bool) -> None:
        """Write to the program's standard input, and close it at the end."""
        assert self._transport is not None
        pipe = self._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        if pipe.is_closing():
            return
        pipe.write(content)
        if end:
            pipe.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """See asyncio."""
        self._on_output(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """See asyncio."""
        self._open.discard(fd)
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        """See asyncio."""
        assert self._transport is not None
        code = self._transport.get_returncode()
        if not self.exited.done():
            self.exited.set_result(code if code is not None else -signal.SIGKILL)

    def close(self) -> None:
        """Let go of the pipes, also of those that somebody else still holds open."""
        assert self._transport is not None
        with suppress(PermissionError):  # at a child of ours that has become another user's
            self._transport.close()


@asynccontextmanager
async def started(
    argv: Sequence[str],
    *,
    on_output: Callable[[int, bytes], None],
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    task: str = "",
    limits: Limits = NO_LIMITS,
) -> AsyncIterator[Child]:
    """Start a program whose output (1 or 2, bytes) goes to `on_output`.

    Its whole process group ends with the block. With `task` it is marked, so that
    `agent.host.marked` finds it, and is in the task's control group where there can be one.
    Raises `ProgramError` when it cannot be started.
    """
    group = group_of(task) if task else None
    wish: launch.Wish = {
        "argv": list(argv),
        "environment": {**ENVIRONMENT, **(env or {}), **({TASK_VARIABLE: task} if task else {})},
        "directory": cwd,
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
                leave_group_of(task)


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
                start_new_session=True,
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
    except OSError as error:
        raise ProgramError(f"cannot start {name}: {error.strerror}") from error
    missed: tuple[str, ...] = ()
    told = io.BytesIO(said)
    while told.tell() < len(said):
        answer: launch.Said = marshal.load(told)  # noqa: S302 - the agent's own launcher's
        missed += tuple(answer["missed"])
        if answer["part"]:
            # A missing program and a missing directory are both "No such file or directory".
            where = f"the directory {wish['directory'][:200]}: " * (answer["part"] == "directory")
            raise ProgramError(f"cannot start {name}: {where}{answer['reason']}")
    return missed
