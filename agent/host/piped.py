"""Read what a program prints as it prints it, and say how the program ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.host import clock
from agent.host.family import end_group, let_go
from agent.host.process import ProgramError, begin
from protocol.errors import Code

assert sys.platform != "win32"

_TAIL_BYTES = 500


class Piped:
    """A program that was started by `piped`. Of its standard error the tail is kept."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, timeout: float) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._name = name
        self._timeout = timeout
        self._deadline = clock.monotonic() + timeout
        self._tail = b""
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()
        self._selector = selectors.DefaultSelector()
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)

    def fill(self, view: memoryview) -> int:
        """Fill `view` with what comes next; less only at the end of the output.

        Raises `ProgramError` when the time is up.
        """
        filled = 0
        while filled < len(view) and self._out in self._selector.get_map():
            for key, _ in self._selector.select(self._left()):
                if key.fd == self._err:
                    self._listen()
                    continue
                got = os.readv(self._out, [view[filled:]])
                if not got:
                    self._selector.unregister(self._out)
                filled += got
        return filled

    def finish(self) -> None:
        """Wait until the program has ended. Raises `ProgramError` unless it succeeded."""
        while self._err in self._selector.get_map() and self._process.poll() is None:
            # Not for the end of its standard error: what it left running may hold that open.
            if self._selector.select(min(self._left(), 0.2)):
                self._listen()
        try:
            code = self._process.wait(self._left())
        except subprocess.TimeoutExpired:
            raise self._late() from None
        if self._err in self._selector.get_map() and self._selector.select(0):
            self._listen()
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            raise ProgramError(f"{self._name} {how}: {self._said()}")

    def close(self) -> None:
        """Watch its output no longer."""
        self._selector.close()

    def _listen(self) -> None:
        piece = os.read(self._err, 65536)
        if not piece:
            self._selector.unregister(self._err)
        self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    def _left(self) -> float:
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> ProgramError:
        return ProgramError(
            f"{self._name} did not end within {self._timeout:g} s: {self._said()}",
            code=Code.TIMED_OUT,
        )

    def _said(self) -> str:
        return self._tail.decode(errors="replace").strip() or "no message"


@contextmanager
def piped(argv: Sequence[str], *, timeout: float) -> Iterator[Piped]:
    """Start a program to read its output; its group ends with the block.

    Raises `ProgramError` when it cannot be started.
    """
    process = begin(argv, stdin=subprocess.DEVNULL)
    with process:
        program = Piped(process, argv[0][:200], timeout)
        try:
            yield program
        finally:
            end_group(process.pid)
            let_go(process.pid)
            program.close()
