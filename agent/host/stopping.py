"""Be told to stop: by a signal, by Ctrl-C, or by Windows' service control manager."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable


def on_stop(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Have `stop` called in the loop once this process is told to end."""
    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
