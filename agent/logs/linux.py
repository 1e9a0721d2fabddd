"""systemd's journal; see `agent.logs.journal`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.host.environment import find_program
from agent.host.process import Run
from agent.logs.journal import Backwards, journalctl
from agent.logs.span import Span
from agent.logs.system_log import DAY_S, MOST_BYTES, TOO_MUCH, EnoughError
from protocol.errors import Code, SteadError


@dataclass(frozen=True, slots=True)
class Journal:
    """See `SystemLog`. A unit is one of systemd's. `over` says whether a span's end has come."""

    run: Run
    over: Callable[[Span], bool]

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
        if find_program("journalctl") is None:
            raise SteadError(
                "this machine has no journalctl; name a file of its logs with --file",
                code=Code.UNSUPPORTED,
            )
        follow = follow and not self.over(span)
        if not count or not span.bounded:
            self._pass_on(journalctl(unit, span, count, follow=follow), printed)
            return ""
        past = self._backwards(unit, span, count)
        if not follow:
            for entry in past.oldest_first():
                printed(entry)
            return TOO_MUCH if past.full else ""
        if past.count < count and not past.full:
            argv = journalctl(unit, span, 0, follow=True)
        else:
            argv = journalctl(unit, Span(until=span.until), count, follow=True)
        self._pass_on(argv, printed)
        return ""

    def _backwards(self, unit: str, span: Span, count: int) -> Backwards:
        """The last entries of a span, and how many there are."""
        past = Backwards(MOST_BYTES)

        def keep(data: bytes) -> None:
            if not past.feed(data):
                raise EnoughError

        with suppress(EnoughError):
            self._pass_on(journalctl(unit, span, count, backwards=True), keep)
        return past

    def _pass_on(self, argv: Sequence[str], printed: Callable[[bytes], None]) -> None:
        self.run(*argv, timeout=DAY_S, on_output=printed).checked()
