"""The one place where the agent starts programs.

A program is apart with all that it starts (`agent.host.family`), so that a time-out or a
cancel ends its children too. Nothing goes through a shell, and nothing is inherited but what is
named here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from agent.host.environment import ENVIRONMENT, TOP, find_program, path_in, with_added
from agent.host.family import APART, KILLED, end_group, let_go, take_in
from protocol.errors import Code, SteadError
from protocol.limits import NO_LIMITS, Limits

TASK_VARIABLE = "STEAD_TASK"
"""Tells in a program's environment for which task it was started."""

KILLED_WITHIN_S = 5.0
"""How long a killed program is waited for."""

DRAIN_S = 2.0
"""So long after a program's end its output is read where something that it left holds it open."""

OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
_LOOK_S = 0.1


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
    """Start a program, wait for it, and keep what it printed.

    What it leaves running is waited for no longer, whatever that holds open.
    """

    def __call__(
        self,
        *argv: str,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """`timeout` in seconds; `env` is added to a fixed, minimal environment.

        `on_output` gets pieces of standard output and standard error as they come, and of both
        just the end is kept then.
        Raises `ProgramError` when the program is missing or the time is up, and LIMIT when it
        prints more than can be kept: the beginning of a list is no list.
        """


def run(
    *argv: str,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Finished:
    """See `Run`."""
    with _fed(stdin) as source:
        process = begin(argv, stdin=source, env=env)
    try:
        stdout, stderr = _heard(process, timeout, on_output)
    except subprocess.TimeoutExpired:
        raise ProgramError(
            f"{argv[0]} did not end within {timeout:g} s", code=Code.TIMED_OUT
        ) from None
    except _TooMuchError:
        raise ProgramError(
            f"{argv[0]} printed more than {OUTPUT_LIMIT_BYTES} bytes", code=Code.LIMIT
        ) from None
    finally:
        _leave(process)
    return Finished(tuple(argv), process.returncode, stdout, stderr)


@contextmanager
def _fed(stdin: bytes) -> Iterator[int]:
    """Something to read `stdin` from, that nobody has to fill while a program runs."""
    if not stdin:
        yield subprocess.DEVNULL
        return
    import tempfile  # which takes its time, and almost no program is given anything

    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file.fileno()


def begin(
    argv: Sequence[str],
    *,
    stdin: int,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """A program apart. `stdin`, `stdout` and `stderr` as in `subprocess`.

    Whoever has waited for its end calls `let_go`. Raises `ProgramError` when it cannot be
    started.
    """
    task = os.environ.get(TASK_VARIABLE)
    full = with_added(ENVIRONMENT, env or {}, {TASK_VARIABLE: task} if task else {})
    try:
        process = subprocess.Popen(
            located(argv, full),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=full,
            cwd=TOP,
            **APART,
        )
        try:
            take_in(process.pid)
        except OSError:
            process.kill()
            raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ProgramError(f"cannot start {argv[0][:200]}: {reason}") from error
    return process


def located(argv: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """How a program is called on this system; raises what `windows_argv` raises."""
    if sys.platform == "win32":
        return windows_argv(argv, environment)
    return argv


def windows_argv(argv: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """How a program is called on Windows, which by itself looks in more places than `PATH`.

    Raises `ProgramError` for a batch file: what stands in its arguments would be read as
    commands by whatever runs it.
    """
    name = argv[0]
    path = path_in(environment)
    found = name if set("\\/:") & set(name) else find_program(name, path)
    if found is None:
        raise ProgramError(f"cannot start {name[:200]}: it is not in {path[:400]}")
    # Windows does not see dots and blanks at the end.
    if found.lower().rstrip(". ").endswith((".bat", ".cmd")):
        raise ProgramError(
            f"cannot start {name[:200]}: a batch file takes no arguments that are safe from "
            "cmd.exe; order cmd.exe /c with a line of your own, or a script",
            code=Code.UNSUPPORTED,
        )
    return (found, *argv[1:])


class _TooMuchError(Exception):
    """A program printed more than can be kept."""


class _EndedError(Exception):
    """A program has ended; what it left running goes on with its output."""


def _heard(
    process: subprocess.Popen[bytes], timeout: float, on_output: Callable[[bytes], None] | None
) -> tuple[bytes, bytes]:
    """What a program printed up to its end; `subprocess.TimeoutExpired` when the time is up."""
    from agent.host.pipes import pieces

    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    over_at: float | None = None

    def left() -> float:
        nonlocal over_at
        now = time.monotonic()
        if over_at is None and process.poll() is not None:
            over_at = now + DRAIN_S
        if over_at is not None:
            if now >= over_at:
                raise _EndedError
            return over_at - now
        if now >= deadline:
            raise subprocess.TimeoutExpired(process.args, timeout)
        return min(deadline - now, _LOOK_S)

    kept = (bytearray(), bytearray())
    with suppress(_EndedError):
        for which, piece in pieces((process.stdout, process.stderr), left):
            kept[which].extend(piece)
            if on_output is not None:
                on_output(piece)
                del kept[which][:-_TAIL_BYTES]
            elif len(kept[which]) > OUTPUT_LIMIT_BYTES:
                raise _TooMuchError
        process.wait(max(deadline - time.monotonic(), 0.001))
    return bytes(kept[0]), bytes(kept[1])


def _leave(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs, with its group, and hold nothing of it any more."""
    if process.poll() is None:
        end_group(process.pid)
        # Not for ever: what hangs in the kernel (a dead file server) dies when that ends.
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILLED_WITHIN_S)
    let_go(process.pid)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class Child(asyncio.SubprocessProtocol):
    """A program that is apart, whose output is passed on as it comes."""

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
        """The program's process id, also that of its group."""
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

    async def ended(self, limit: timedelta, off: asyncio.Future[str] | None = None) -> int | None:
        """The exit code, once what was printed has been read; None when the time is up first.

        None also when `off` is done first.
        """
        awaited: set[asyncio.Future[Any]] = {self.exited} if off is None else {self.exited, off}
        await asyncio.wait(
            awaited, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        if not self.exited.done():
            return None
        # Something that it left running may hold its output open: it is not waited for.
        await asyncio.wait({self.drained}, timeout=DRAIN_S)
        return self.exited.result()

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
            self.exited.set_result(code if code is not None else KILLED)

    def kill(self) -> None:
        """End the program alone; for one that never began."""
        assert self._transport is not None
        self._transport.kill()

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
    cwd: str = TOP,
    task: str = "",
    limits: Limits = NO_LIMITS,
) -> AsyncIterator[Child]:
    """Start a program whose output (1 or 2, bytes) goes to `on_output`.

    It ends with the block, and so does its whole family: its process group, or its job on
    Windows. With `task` it is marked, so that `agent.host.marked` finds it.
    Raises `ProgramError` when it cannot be started, UNSUPPORTED for limits that this
    system knows no way to enforce.
    """
    if sys.platform == "win32":
        from agent.host.in_job import begun
    else:
        from agent.host.launching import begun
    full = with_added(ENVIRONMENT, env or {}, {TASK_VARIABLE: task} if task else {})
    async with begun(argv, on_output, full, cwd, task, limits) as child:
        yield child
