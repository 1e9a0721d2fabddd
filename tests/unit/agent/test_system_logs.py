"""The logs of Windows and macOS: what their programs print, and what they are called with."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.process import Finished
from agent.logs.events import DEFAULT_LOGS, EventReader, parse_unit, wevtutil
from agent.logs.macos import UnifiedLog
from agent.logs.span import Span
from agent.logs.unified import EntryReader, log_show, log_stream
from agent.logs.windows import EventLog
from protocol.errors import Code, InvalidError, SteadError

DATA = Path(__file__).parents[2] / "data/logs"
EVENTS = (DATA / "wevtutil-rendered.xml").read_bytes()
ENTRIES = (DATA / "log-show.ndjson").read_bytes()
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ALL = Span()

SHOWN = [
    "2026-05-04T12:00:03.123Z SHOP-01 Service Control Manager[812]: Information 7036: "
    "The Größe <Web> service entered the running state.\n",
    "2026-05-04T12:00:02.500Z SHOP-01 OldDriver[4]: Error 11: \\Device\\Harddisk1 "
    "Code=0x80000011\n",
    "2026-05-04T12:00:01.000Z SHOP-01 Microsoft-Windows-WindowsUpdateClient[812]: Information 19: "
    "Installation Successful:\nWindows installed\n  KB5000001\n",
    "2026-05-04T12:00:00.000Z SHOP-01 Custom[812]: Warning 1: with an Event inside\n",
]


@pytest.mark.parametrize(
    "data",
    [
        EVENTS,
        EVENTS.decode().encode("utf-16-le"),
        codecs.BOM_UTF16_LE + EVENTS.decode().encode("utf-16-le"),
    ],
    ids=["utf-8", "utf-16", "utf-16 with its mark"],
)
@pytest.mark.parametrize("piece", [1, 2, 7, 100_000])
def test_events_are_read_in_whatever_pieces_they_come(data: bytes, piece: int) -> None:
    reader = EventReader()
    found = [
        event
        for start in range(0, len(data), piece)
        for event in reader.feed(data[start : start + piece])
    ]
    assert [event.line.decode() for event in found] == SHOWN
    assert [event.record for event in found] == [4104, 4103, 4102, 4101]
    assert reader.unread == 0


def test_what_is_no_event_is_counted_and_the_next_one_read() -> None:
    reader = EventReader()
    first = EVENTS.partition(b"\n")[0]
    bad = b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><Event >&a;</Event>"
    cut = first.replace(b"</System>", b"")
    odd = first.replace(b"2026-05-04T", b"yesterday")
    found = reader.feed(bad + cut + odd + first)
    assert len(found) == 1
    assert reader.unread == 3


@pytest.mark.parametrize("odd", ["\x01", "\x1b", "&#1;", "&#x1B;", "&#xFFFF;", "&#0;", "\ufffe"])
def test_no_character_hides_an_event(odd: str) -> None:
    """Else who has one in his name does not appear in what an operator sees."""
    first = EVENTS.decode().partition("\n")[0]
    assert "Größe" in first
    reader = EventReader()
    [found] = reader.feed(first.replace("Größe", f"Gr{odd}&#246;&#xdf;e").encode())
    assert "Gr\ufffdöße" in found.line.decode()
    assert reader.unread == 0


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_break_the_readers(pieces: list[bytes]) -> None:
    events, entries = EventReader(), EntryReader()
    for piece in pieces:
        events.feed(piece)
        entries.feed(piece)


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    reader = EventReader()
    for _ in range(40):
        reader.feed(b"<Event x" + b"a" * 100_000)
    assert reader.unread >= 3
    assert [event.record for event in reader.feed(EVENTS)] == [4104, 4103, 4102, 4101]


def test_wevtutil_is_called_to_the_letter() -> None:
    head, tail = ("wevtutil.exe", "qe"), ("/rd:true", "/f:RenderedXml", "/uni:true")
    assert wevtutil("System", "", ALL, 0) == (*head, "System", "/q:*", *tail)
    span = Span(NOON, NOON + timedelta(hours=2, milliseconds=5))
    assert wevtutil("Application", "My App", span, 50, 7) == (
        *head,
        "Application",
        "/q:*[System[Provider[@Name='My App'] and EventRecordID > 7 and "
        "TimeCreated[@SystemTime >= '2026-05-04T12:00:00.000Z'] and "
        "TimeCreated[@SystemTime <= '2026-05-04T14:00:00.005Z']]]",
        *tail,
        "/c:50",
    )


@pytest.mark.parametrize(
    "unit",
    ["/lf:true", "-x", "a'b", "System:a' or '1'='1", 'System:a"b', "a\nb", ":a\0", "x" * 300],
)
def test_what_can_be_no_log_or_provider_is_refused(unit: str) -> None:
    with pytest.raises(InvalidError):
        parse_unit(unit)


def test_a_unit_is_a_log_and_a_provider() -> None:
    assert parse_unit("").logs == DEFAULT_LOGS
    assert parse_unit("Microsoft-Windows-PowerShell/Operational").provider == ""
    found = parse_unit("Application:MSSQL$SHOP")
    assert (found.logs, found.provider) == (("Application",), "MSSQL$SHOP")


class Wevtutil:
    """Answers with the events of each log, the newest first, by what it is asked for."""

    def __init__(self, **logs: list[tuple[int, str]]) -> None:
        self.logs = logs

    def __call__(self, *argv: str, **options: Any) -> Finished:
        log, query = argv[2], argv[3]
        if log not in self.logs:
            return Finished(argv, 15007, b"", b"Failed to read events.")
        found_after = re.search(r"EventRecordID > (\d+)", query)
        after = int(found_after[1]) if found_after else 0
        asked = [one for one in argv if one.startswith("/c:")]
        found = [one for one in reversed(self.logs[log]) if one[0] > after]
        if "Provider" in query:
            found = []
        for record, at in found[: int(asked[0][3:])] if asked else found:
            first = EVENTS.decode().partition("\n")[0]
            text = first.replace("4104", str(record)).replace("2026-05-04T12:00:03.1234567Z", at)
            options["on_output"](text.encode("utf-16-le"))
        return Finished(argv, 0, b"", b"")


def event_log(wevtutil: Wevtutil, waits: list[Callable[[], None]]) -> EventLog:
    return EventLog(wevtutil, lambda _: waits.pop(0)(), lambda _: not waits)


def records(shown: list[bytes]) -> list[str]:
    return [line.decode().partition("Z")[0][-12:] for line in shown]


def test_two_logs_are_shown_as_one_by_their_times() -> None:
    logs = Wevtutil(
        System=[(1, "2026-05-04T12:00:01.000Z"), (2, "2026-05-04T12:00:04.000Z")],
        Application=[(9, "2026-05-04T12:00:02.000Z"), (10, "2026-05-04T12:00:03.000Z")],
    )
    shown: list[bytes] = []
    assert event_log(logs, []).read("", ALL, 3, follow=False, printed=shown.append) == ""
    assert records(shown) == ["12:00:02.000", "12:00:03.000", "12:00:04.000"]
    shown.clear()
    event_log(logs, []).read("System", ALL, 0, follow=False, printed=shown.append)
    assert records(shown) == ["12:00:01.000", "12:00:04.000"]


def test_what_comes_later_is_shown_once_and_nothing_else() -> None:
    logs = Wevtutil(System=[(1, "2026-05-04T12:00:01.000Z")])
    waits = [
        lambda: None,
        lambda: logs.logs["System"].append((2, "2026-05-04T12:00:02.000Z")),
        lambda: None,
        lambda: logs.logs["System"].append((3, "2026-05-04T12:00:03.000Z")),
    ]
    shown: list[bytes] = []
    event_log(logs, waits).read("System", ALL, 5, follow=True, printed=shown.append)
    assert records(shown) == ["12:00:01.000", "12:00:02.000", "12:00:03.000"]


def test_who_follows_a_provider_without_events_is_not_shown_the_whole_log() -> None:
    asked: list[str] = []

    class Noting(Wevtutil):
        def __call__(self, *argv: str, **options: Any) -> Finished:
            asked.append(argv[3])
            return super().__call__(*argv, **options)

    logs = Noting(System=[(7, "2026-05-04T12:00:01.000Z")])
    event_log(logs, [lambda: None]).read("System:x", ALL, 5, follow=True, printed=lambda _: None)
    assert asked == [
        "/q:*",
        "/q:*[System[Provider[@Name='x']]]",
        "/q:*[System[Provider[@Name='x'] and EventRecordID > 7]]",
    ]


def test_a_log_that_there_is_not_is_named() -> None:
    with pytest.raises(SteadError, match="no log 'nginx'") as caught:
        event_log(Wevtutil(System=[]), []).read(
            "nginx", ALL, 5, follow=False, printed=lambda _: None
        )
    assert caught.value.code is Code.NOT_FOUND


def test_more_events_than_are_shown_are_cut_at_the_old_end() -> None:
    first = EVENTS.partition(b"\n")[0].decode()
    large = first.replace("running state", "x" * 200_000)

    def endless(*argv: str, **options: Any) -> Finished:
        for _number in range(1000):
            options["on_output"](large.encode("utf-16-le"))
        raise AssertionError("it was read on and on")

    shown: list[bytes] = []
    log = EventLog(endless, lambda _: None, lambda _: True)
    words = log.read("System", ALL, 0, follow=False, printed=shown.append)
    assert "the older rest is not shown" in words
    assert 0 < sum(map(len, shown)) <= 8 * 1024 * 1024


@pytest.mark.parametrize("piece", [1, 50, 100_000])
def test_entries_are_read_in_whatever_pieces_they_come(piece: int) -> None:
    reader = EntryReader()
    found = [
        entry
        for start in range(0, len(ENTRIES), piece)
        for entry in reader.feed(ENTRIES[start : start + piece])
    ]
    assert [entry.line.decode() for entry in found] == [
        "2026-05-04T12:00:00.326Z taskgated[156] Error [com.apple.securityd:security_exception]: "
        "MacOS error: -67062\n",
        "2026-05-04T12:00:01.000Z kernel[0] Default: two\nlines\n",
        "2026-05-04T12:00:02.999Z [77]: \n",
    ]


def test_log_is_called_to_the_letter() -> None:
    head = ("log", "show", "--style", "ndjson")
    assert log_show("", ALL) == (*head, "--last", "1h")
    span = Span(NOON, NOON + timedelta(milliseconds=1))
    assert log_show("com.apple.x", span) == (
        *head,
        "--start",
        "2026-05-04 12:00:00+0000",
        "--end",
        "2026-05-04 12:00:01+0000",
        "--predicate",
        'process == "com.apple.x" OR subsystem == "com.apple.x"',
    )
    assert log_stream("") == ("log", "stream", "--style", "ndjson")


@pytest.mark.parametrize("unit", ['a" OR "1" == "1', "a\\", "-x", "a\nb", "'", "x" * 300])
def test_what_can_be_no_process_is_refused(unit: str) -> None:
    with pytest.raises(InvalidError):
        log_show(unit, ALL)
    with pytest.raises(InvalidError):
        log_stream(unit)


def test_the_last_entries_within_the_span_are_shown() -> None:
    def log(*argv: str, **options: Any) -> Finished:
        options["on_output"](ENTRIES)
        return Finished(argv, 0, b"", b"")

    shown: list[bytes] = []
    words = UnifiedLog(log).read("", ALL, 1, follow=False, printed=shown.append)
    assert words == "this is the last hour; say --since for more"
    assert [line.partition(b"Z")[0] for line in shown] == [b"2026-05-04T12:00:02.999"]
    shown.clear()
    span = Span(NOON + timedelta(milliseconds=400), NOON + timedelta(seconds=2))
    assert UnifiedLog(log).read("", span, 0, follow=False, printed=shown.append) == ""
    assert [line.partition(b"Z")[0] for line in shown] == [b"2026-05-04T12:00:01.000"]


def test_what_log_says_of_a_failure_is_passed_on() -> None:
    def log(*argv: str, **_: Any) -> Finished:
        return Finished(argv, 64, b"", b"log: Must be admin to run 'show' command")

    with pytest.raises(SteadError, match="Must be admin"):
        UnifiedLog(log).read("", ALL, 1, follow=False, printed=lambda _: None)
