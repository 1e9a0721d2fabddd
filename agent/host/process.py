"""The one place where the agent starts programs.

A program gets its own process group, so that a time-out or a cancel ends its
children too. Nothing goes through a shell, and nothing is inherited but what is
named here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from protocol.errors import Code, SteadError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
}
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
    full = {**ENVIRONMENT, **(env or {})}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=full,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(f"cannot start {argv[0]}: {error.strerror}") from error
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
    except ProcessLookupError:
        return


@asynccontextmanager
async def started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a program whose streams the caller reads; its whole group ends with the block."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**ENVIRONMENT, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(f"cannot start {argv[0]}: {error.strerror}") from error
    try:
        yield process
    finally:
        end_group(process.pid)
        await process.wait()
