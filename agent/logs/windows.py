"""The event logs of Windows, by `wevtutil`; see `agent.logs.events`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.host.process import Run
from agent.logs.events import Event, EventReader, Wanted, parse_unit, wevtutil
from agent.logs.span import Span
from agent.logs.system_log import DAY_S, MOST_BYTES, TOO_MUCH, EnoughError
from protocol.errors import NotFoundError

LOOK_S = 2.0
_NO_SUCH_LOG = 15007  # ERROR_EVT_CHANNEL_NOT_FOUND


@dataclass(frozen=True, slots=True)
class EventLog:
    """See `SystemLog`. A unit is `LOG`, `LOG:PROVIDER` or `:PROVIDER`; without one it is the
    logs System and Application. `wait` takes seconds; `over` says whether a span's end has come.
    """

    run: Run
    wait: Callable[[float], None]
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
        wanted = parse_unit(unit)
        last = {log: self._newest_record(log) if follow else 0 for log in wanted.logs}
        missing = self._show(wanted, span, count, {}, last, printed)
        while follow and not self.over(span):
            self.wait(LOOK_S)
            missing += self._show(wanted, span, 0, last, last, printed)
        return "; ".join(dict.fromkeys(missing))

    def _newest_record(self, log: str) -> int:
        """The number of a log's newest event, whoever's it is; 0 for none."""
        events, _ = self._newest(log, "", Span(), 1, 0)
        return max((event.record for event in events), default=0)

    def _show(
        self,
        wanted: Wanted,
        span: Span,
        count: int,
        after: Mapping[str, int],
        last: dict[str, int],
        printed: Callable[[bytes], None],
    ) -> list[str]:
        """Show what came after some records, and note the last ones; what is missing from it."""
        found: list[Event] = []
        missing = []
        for log in wanted.logs:
            events, words = self._newest(log, wanted.provider, span, count, after.get(log, 0))
            last[log] = max([last[log], *(event.record for event in events)])
            found += events
            missing += [f"{log}: {words}"] if words else []
        found.sort(key=lambda event: (event.at, event.record))
        for event in found[-count:] if count else found:
            printed(event.line)
        return missing

    def _newest(
        self, log: str, provider: str, span: Span, count: int, after: int
    ) -> tuple[list[Event], str]:
        """The newest events, and what is missing from them."""
        reader, events, size = EventReader(), list[Event](), 0

        def keep(data: bytes) -> None:
            nonlocal size
            for event in reader.feed(data):
                size += len(event.line)
                if size > MOST_BYTES:
                    raise EnoughError
                events.append(event)

        try:
            argv = wevtutil(log, provider, span, count, after)
            done = self.run(*argv, timeout=DAY_S, on_output=keep)
        except EnoughError:
            return events, TOO_MUCH
        if done.code == _NO_SUCH_LOG:
            raise NotFoundError(
                f"this machine has no log {log!r}; a unit is LOG, LOG:PROVIDER or :PROVIDER"
            )
        done.checked()
        return events, f"{reader.unread} events could not be read" if reader.unread else ""
