"""How many streams one caller may have at a time, so that none can fill the memory alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from controller.vault.errors import LimitError


class Streams:
    """Counts the streams of each caller; belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The streams of all callers."""
        return self._open.total()

    @contextmanager
    def entered(self, caller: str) -> Iterator[None]:
        """Count a stream for as long as it lasts; `LimitError` when it is one too many."""
        if self._open[caller] >= self._limit:
            raise LimitError(
                f"there are {self._limit} streams of this kind open already; end one of them first"
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
