"""Read a log and show it as it is read: the system's own, or a file with its rotations."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agent.actions.action import ActionResult, Workplace
from agent.files.reach import open_file
from agent.host import clock
from agent.host.spool import LIMIT_BYTES, PIECE_BYTES
from agent.host.zone import local_zone
from agent.logs.detect import detect_log
from agent.logs.files import Follower, read_log
from agent.logs.span import Span
from protocol.action import ReadLog
from protocol.codec import from_ms
from protocol.errors import Code, InvalidError
from protocol.outcome import OutcomeState

MOST_LINES = 1_000_000
LOOK_S = 0.25


class FullError(Exception):
    """As much was shown as is kept of a task's output."""


class Shown:
    """Passes on what is read, in pieces, up to what is kept of a task's output."""

    def __init__(self, printed: Callable[[bytes], None]) -> None:
        self._printed = printed
        self._room = LIMIT_BYTES
        self.anything = False
        self._piece = bytearray()

    def add(self, data: bytes) -> bool:
        """Show it as far as there is room; whether there is more."""
        self.anything = self.anything or bool(data)
        self._piece += data[: self._room]
        self._room -= min(self._room, len(data))
        if len(self._piece) >= PIECE_BYTES:
            self.flush()
        return self._room > 0

    def flush(self) -> None:
        """Show what is there."""
        if self._piece:
            self._printed(bytes(self._piece))
            self._piece.clear()

    def add_now(self, data: bytes) -> None:
        """Show it at once; `FullError` when there is no more room."""
        more = self.add(data)
        self.flush()
        if not more:
            raise FullError


def execute(action: ReadLog, place: Workplace) -> ActionResult:
    """Show what was asked for; the message says what is missing from it."""
    if action.file and action.unit:
        raise InvalidError("a log is a file's or a unit's, not both")
    if action.lines > MOST_LINES:
        raise InvalidError(f"at most {MOST_LINES} lines are shown")
    span = Span(
        from_ms(action.since_ms) if action.since_ms else None,
        from_ms(action.until_ms) if action.until_ms else None,
    )
    if span.since is not None and span.until is not None and span.until < span.since:
        raise InvalidError("the log is to end before it begins")
    shown = Shown(place.printed)
    try:
        if action.file:
            message, damaged = _file(action, span, shown, place)
        else:
            message, damaged = _system(action, span, shown), ()
    except FullError:
        message, damaged = _cut(), ()
    finally:
        shown.flush()
    if not shown.anything and not message:
        # An empty answer could as well be a log that is not kept here.
        message = "there is no such line in this log"
    if damaged:
        words = "; ".join(filter(None, (message, *damaged)))
        return ActionResult(OutcomeState.PARTIAL, code=Code.PRECONDITION, message=words)
    return ActionResult(OutcomeState.SUCCEEDED, message=message)


def _system(action: ReadLog, span: Span, shown: Shown) -> str:
    def printed(data: bytes) -> None:
        # What is followed is seen as it comes.
        if action.follow:
            shown.add_now(data)
        elif not shown.add(data):
            raise FullError

    return detect_log().read(action.unit, span, action.lines, follow=action.follow, printed=printed)


def _file(
    action: ReadLog, span: Span, shown: Shown, place: Workplace
) -> tuple[str, tuple[str, ...]]:
    path = Path(action.file)

    def reach(one: Path) -> int:
        return open_file(one, place.home.path)

    follower = Follower(path, reach)
    end = follower.begin() if action.follow else None
    read = read_log(path, span, action.lines, local_zone(), shown.add, end, reach=reach)
    if read.cut:
        return _cut(), read.damaged
    while action.follow and (span.until is None or clock.now() <= span.until):
        added = follower.added()
        if not added:
            shown.flush()
            time.sleep(LOOK_S)
        elif not shown.add(added):
            return _cut(), read.damaged
    if not read.stamped:
        words = "begins with a time that is known, so none could be chosen by time"
        return f"no line of {path} {words}", read.damaged
    return "", read.damaged


def _cut() -> str:
    return f"more than {LIMIT_BYTES} bytes: the rest is not shown; ask for less time or fewer lines"
