"""Events of Windows, as `wevtutil` is asked for them and as it prints them. Pure.

The form of an event is Microsoft's event schema with a `RenderingInfo`, which has the words.
"""

from __future__ import annotations

import codecs
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from agent.logs.span import Span
from protocol.errors import InvalidError

DEFAULT_LOGS = ("System", "Application")
EVENT_CHARACTERS = 1024 * 1024

_NAMESPACE = "http://schemas.microsoft.com/win/2004/08/events/event"
_SPACE = f"{{{_NAMESPACE}}}"
_TAG = re.compile(r"<Event(?=[ >/])[^<>]*>|</Event>")
_LOG = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()/%-]{0,254}")
_PROVIDER = re.compile(r"[^'\"<>&\x00-\x1f\x7f]{1,255}")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NUMBERED = re.compile(r"&#(?:([0-9]{1,7})|x([0-9A-Fa-f]{1,6}));")
_LEVELS = {"1": "Critical", "2": "Error", "3": "Warning", "5": "Verbose"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs are read, and whose events; an empty provider is everybody."""

    logs: tuple[str, ...]
    provider: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event; `record` numbers those of one log."""

    at: datetime
    record: int
    line: bytes


def parse_unit(unit: str) -> Wanted:
    """`LOG`, `LOG:PROVIDER` or `:PROVIDER`; `InvalidError` when it is none of them.

    >>> parse_unit(":Service Control Manager")
    Wanted(logs=('System', 'Application'), provider='Service Control Manager')
    """
    log, _, provider = unit.partition(":")
    if log and not _LOG.fullmatch(log):
        raise InvalidError(f"{log[:80]!r} cannot be the name of a log")
    if provider and not _PROVIDER.fullmatch(provider):
        raise InvalidError(f"{provider[:80]!r} cannot be the name of a provider")
    return Wanted((log,) if log else DEFAULT_LOGS, provider)


def wevtutil(log: str, provider: str, span: Span, count: int, after: int = 0) -> tuple[str, ...]:
    """How `wevtutil` is called for the newest events of a log, the newest first.

    Nothing that comes from an order can end the text it stands in: `parse_unit` has looked.
    """
    conditions = []
    if provider:
        conditions.append(f"Provider[@Name='{provider}']")
    if after:
        conditions.append(f"EventRecordID > {after}")
    if span.since is not None:
        conditions.append(f"TimeCreated[@SystemTime >= '{_time(span.since)}']")
    if span.until is not None:
        conditions.append(f"TimeCreated[@SystemTime <= '{_time(span.until)}']")
    query = f"*[System[{' and '.join(conditions)}]]" if conditions else "*"
    argv = ("wevtutil.exe", "qe", log, f"/q:{query}", "/rd:true", "/f:RenderedXml", "/uni:true")
    return (*argv, f"/c:{count}") if count else argv


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


class EventReader:
    """Reads what `wevtutil` prints, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._begin = b""
        self._text = ""
        self.unread = 0
        """Events that could not be read."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole by now."""
        data, self._begin = self._begin + data, b""
        if self._decoder is None:
            if len(data) < 2:
                self._begin = data
                return []
            # With /uni:true it is UTF-16; what does not look like that is taken for UTF-8.
            wide = data[:2] == codecs.BOM_UTF16_LE or data[1:2] == b"\0"
            kind = "utf-16-le" if wide else "utf-8"
            self._decoder = codecs.getincrementaldecoder(kind)(errors="replace")
        self._text += self._decoder.decode(data)
        found = [parse_event(text) for text in self._whole()]
        self.unread += found.count(None)
        return [event for event in found if event is not None]

    def _whole(self) -> list[str]:
        """Cut off what is whole: an event may have elements of its own name inside."""
        whole, begin, depth = [], 0, 0
        for tag in _TAG.finditer(self._text):
            if tag[0] == "</Event>":
                depth = max(depth - 1, 0)
                if not depth:
                    whole.append(self._text[begin : tag.end()])
                    begin = tag.end()
            elif not depth or _NAMESPACE in tag[0]:
                # A new one, also where the one before has no end.
                self.unread += bool(depth)
                begin, depth = tag.start(), 1
            elif not tag[0].endswith("/>"):
                depth += 1
        self._text = self._text[begin:]
        if len(self._text) > EVENT_CHARACTERS:
            self._text = ""
            self.unread += 1
        return whole


def parse_event(text: str) -> Event | None:
    """One event; None when it is no event, or one with a document type of its own.

    Windows writes what providers and users gave it, also characters that no XML may have.
    """
    if "<!" in text.replace("<![CDATA[", ""):
        return None
    text = _NUMBERED.sub(_character, _NO_XML.sub("\ufffd", text))
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type, as seen above
        system = root.find(f"{_SPACE}System")
        if system is None:
            return None
        at = datetime.fromisoformat(_attribute(system, "TimeCreated", "SystemTime"))
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        record = int(_text(system, "EventRecordID") or 0)
    except (ElementTree.ParseError, ValueError):
        return None
    rendered = root.find(f"{_SPACE}RenderingInfo")
    message = _text(rendered, "Message") or " ".join(_data(root))
    level = _text(rendered, "Level") or _LEVELS.get(_text(system, "Level"), "Information")
    provider = _attribute(system, "Provider", "Name")
    pid = _attribute(system, "Execution", "ProcessID")
    who = f"{provider}[{pid}]" if pid else provider
    words = "\n".join(line.rstrip() for line in message.splitlines()).strip()
    what = f"{level} {_text(system, 'EventID')}"
    line = f"{_time(at)} {_text(system, 'Computer')} {who}: {what}: {words}\n"
    return Event(at, record, line.encode(errors="replace"))


def _character(found: re.Match[str]) -> str:
    """A character by its number, or the sign for none where XML has none of this number."""
    number = int(found[1]) if found[1] else int(found[2], 16)
    is_one = 0 < number <= sys.maxunicode and not _NO_XML.match(chr(number))
    return found[0] if is_one else "\ufffd"


def _data(root: ElementTree.Element) -> list[str]:
    """What an event carries whose provider is not there to put it into words."""
    told = [*root.iterfind(f"{_SPACE}EventData/{_SPACE}Data")]
    return [
        f"{one.get('Name')}={one.text or ''}" if one.get("Name") else one.text or "" for one in told
    ]


def _text(parent: ElementTree.Element | None, name: str) -> str:
    if parent is None:
        return ""
    return (parent.findtext(f"{_SPACE}{name}") or "").strip()


def _attribute(parent: ElementTree.Element, name: str, attribute: str) -> str:
    found = parent.find(f"{_SPACE}{name}")
    return "" if found is None else found.get(attribute, "")
