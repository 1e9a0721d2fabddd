"""The unified log of macOS, by `log`; see `agent.logs.unified`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.host.process import Run
from agent.logs.span import Span
from agent.logs.system_log import DAY_S, MOST_BYTES, TOO_MUCH
from agent.logs.unified import EntryReader, LogEntry, log_show, log_stream


@dataclass(frozen=True, slots=True)
class UnifiedLog:
    """See `SystemLog`. A unit is the name of a process, or a subsystem."""

    run: Run

    def read(
        self,
        unit: str,
        span: Span,
        count: int,
        *,
        follow: bool,
        printed: Callable[[bytes], None],
    ) -> str:
        """See `SystemLog`."""
        cut = self._show(unit, span, count, printed)
        if follow:
            reader = EntryReader()

            def pass_on(data: bytes) -> None:
                for entry in reader.feed(data):
                    printed(entry.line)

            self.run(*log_stream(unit), timeout=DAY_S, on_output=pass_on).checked()
        words = [TOO_MUCH] if cut else []
        if span == Span():
            words.append("this is the last hour; say --since for more")
        return "; ".join(words)

    def _show(self, unit: str, span: Span, count: int, printed: Callable[[bytes], None]) -> bool:
        """Show the last entries; whether bytes were what cut them."""
        reader, kept, size, cut = EntryReader(), deque[LogEntry](), 0, False

        def keep(data: bytes) -> None:
            nonlocal size, cut
            for entry in reader.feed(data):
                if not span.has(entry.at):
                    continue  # asked for by the second
                kept.append(entry)
                size += len(entry.line)
                while (count and len(kept) > count) or size > MOST_BYTES:
                    cut = cut or not count or len(kept) <= count
                    size -= len(kept.popleft().line)

        self.run(*log_show(unit, span), timeout=DAY_S, on_output=keep).checked()
        for entry in kept:
            printed(entry.line)
        return cut
