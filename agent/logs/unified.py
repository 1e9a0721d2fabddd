"""The unified log of macOS, as `log` is asked for it and as it prints it. Pure.

An entry is a line of JSON (`--style ndjson`) with the fields that log(1) names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from agent.logs.span import Span
from protocol.errors import InvalidError

_UNIT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_. ()+-]{0,249}")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry, when it was written and how it is shown."""

    at: datetime
    line: bytes


class _Said(msgspec.Struct, frozen=True):
    """What of an entry is looked at."""

    timestamp: str
    event_message: str | None = msgspec.field(default="", name="eventMessage")
    process: str | None = msgspec.field(default="", name="processImagePath")
    process_id: int = msgspec.field(default=0, name="processID")
    subsystem: str | None = ""
    category: str | None = ""
    message_type: str | None = msgspec.field(default="", name="messageType")


def predicate_of(unit: str) -> tuple[str, ...]:
    """The words that narrow entries down to a process or a subsystem; none for an empty unit.

    Nothing that gets through can end the text it stands in.
    """
    if not unit:
        return ()
    if not _UNIT.fullmatch(unit):
        raise InvalidError(f"{unit[:80]!r} can be neither a process nor a subsystem")
    return ("--predicate", f'process == "{unit}" OR subsystem == "{unit}"')


def log_show(unit: str, span: Span) -> tuple[str, ...]:
    """How `log show` is called; without a beginning it is the last hour."""
    if span.since is None:
        begin: tuple[str, ...] = ("--last", "1h") if span.until is None else ()
    else:
        begin = ("--start", _time(math.floor(span.since.timestamp())))
    end = () if span.until is None else ("--end", _time(math.ceil(span.until.timestamp())))
    return ("log", "show", "--style", "ndjson", *begin, *end, *predicate_of(unit))


def log_stream(unit: str) -> tuple[str, ...]:
    """How `log stream` is called, which goes on."""
    return ("log", "stream", "--style", "ndjson", *predicate_of(unit))


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}+0000"


class EntryReader:
    """Reads what `log` prints, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[LogEntry]:
        """The entries that are whole by now; what is no entry (a heading, the count) is none."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [entry for entry in map(parse_entry, lines) if entry is not None]


def parse_entry(line: bytes) -> LogEntry | None:
    """An entry of the log; None when the line is none."""
    try:
        said = msgspec.json.decode(line, type=_Said)
        at = datetime.fromisoformat(said.timestamp).astimezone(UTC)
    except (msgspec.DecodeError, ValueError):
        return None
    process = (said.process or "").rpartition("/")[2]
    topic = ":".join(filter(None, (said.subsystem, said.category)))
    where = f" [{topic}]" if topic else ""
    kind = f" {said.message_type}" if said.message_type else ""
    shown = (
        f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z {process}[{said.process_id}]"
        f"{kind}{where}: {said.event_message or ''}\n"
    )
    return LogEntry(at, shown.encode(errors="replace"))
