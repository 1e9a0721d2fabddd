"""What programs on machines print, on its way to the streams here.

A terminal gets text in which nothing steers it; a file or a pipe gets the very bytes.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Mapping
from typing import TextIO

from protocol.v1.link_pb2 import OutputStream, TaskOutput


def inert(text: str) -> str:
    """Text that does nothing to a terminal but move on.

    >>> inert("a\\x1b[2J\\tb")
    'a\\\\x1b[2J\\tb'
    """
    return "".join(c if c.isprintable() or c in "\n\t\r" else repr(c)[1:-1] for c in text)


LINE_BYTES = 64 * 1024
"""What is longer comes as several lines, where several machines print."""


class Printer:
    """Prints pieces of output as they come; `names` are the machines' by task.

    With one task pieces go out as they are. With several, whole lines do, each with its
    machine's name in front; `close` prints what had no end. Nothing in such a line goes back
    to its beginning on a terminal: one machine cannot speak for another.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._begun: dict[tuple[str, bool], bytes] = {}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {to_stderr: decoder("backslashreplace") for to_stderr in (False, True)}

    def print(self, event: TaskOutput) -> None:
        """Print a piece, or keep what is the beginning of a line."""
        to_stderr = event.stream == OutputStream.OUTPUT_STREAM_STDERR
        if len(self._names) == 1:
            self._out(event.data, to_stderr)
            return
        where = event.task_id, to_stderr
        *lines, rest = (self._begun.get(where, b"") + event.data).split(b"\n")
        for line in lines:
            self._line(event.task_id, line, to_stderr)
        while len(rest) > LINE_BYTES:
            self._line(event.task_id, rest[:LINE_BYTES], to_stderr)
            rest = rest[LINE_BYTES:]
        self._begun[where] = rest

    def close(self) -> None:
        """Print what is left of lines and of characters."""
        for (task, to_stderr), rest in self._begun.items():
            if rest:
                self._line(task, rest, to_stderr)
        self._begun.clear()
        for to_stderr, decoder in self._decoders.items():
            if left := decoder.decode(b"", final=True):
                _stream(to_stderr).write(left)
                _stream(to_stderr).flush()

    def _line(self, task: str, line: bytes, to_stderr: bool) -> None:
        name = self._names.get(task, task)
        if _stream(to_stderr).isatty():
            line = line.removesuffix(b"\r").replace(b"\r", b"\\r")
        self._out(f"{name}: ".encode() + line + b"\n", to_stderr)

    def _out(self, data: bytes, to_stderr: bool) -> None:
        stream = _stream(to_stderr)
        if stream.isatty():
            # A character may come in two pieces.
            stream.write(inert(self._decoders[to_stderr].decode(data)))
        else:
            stream.flush()
            stream.buffer.write(data)
        stream.flush()


def _stream(to_stderr: bool) -> TextIO:
    return sys.stderr if to_stderr else sys.stdout
