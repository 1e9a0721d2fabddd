"""Find the log that this system keeps of itself."""

from __future__ import annotations

import sys
import threading

from agent.host import clock
from agent.host.process import Run, run
from agent.logs.span import Span
from agent.logs.system_log import SystemLog


def detect_log(start: Run = run) -> SystemLog:
    """The log of this system."""
    if sys.platform == "win32":
        from agent.logs.windows import EventLog

        return EventLog(start, _wait, _over)
    if sys.platform == "darwin":
        from agent.logs.macos import UnifiedLog

        return UnifiedLog(start)
    from agent.logs.linux import Journal

    return Journal(start, _over)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _over(span: Span) -> bool:
    return span.until is not None and clock.now() > span.until
