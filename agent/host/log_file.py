"""A file for the log where no service manager keeps one: bounded, with the one before."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from pathlib import Path
from typing import TextIO

MOST_BYTES = 8 * 1024 * 1024


class LogFile(io.TextIOBase):
    """Takes lines as a stream does. Beyond `most_bytes` it begins a new file and keeps the last.

    What the disk does not take is lost, as everywhere with the log.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._path, self._most = path, most_bytes
        self._lock = threading.Lock()
        self._file: TextIO = self._opened()

    def writable(self) -> bool:
        """See io."""
        return True

    def write(self, text: str) -> int:
        """See io. Lines are never cut in two."""
        with self._lock:
            if self._file.closed:
                # It could not be opened anew, or not be closed: perhaps it can by now.
                self._file = self._opened()
            if self._file.tell() >= self._most:
                self._begin_anew()
            self._file.write(text)
        return len(text)

    def _begin_anew(self) -> None:
        # Closed first: Windows renames no open file, and none that somebody looks at.
        self._file.close()
        with suppress(OSError):
            self._path.replace(self._path.with_suffix(".1"))
        self._file = self._opened()

    def close(self) -> None:
        """See io."""
        self._file.close()
        super().close()

    def flush(self) -> None:
        """See io."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def _opened(self) -> TextIO:
        return self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
