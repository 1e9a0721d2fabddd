"""The agent's log: one JSON object a line on standard error, which the service manager keeps.

An event is a past-tense name with fields. Never secrets, never whole orders.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from agent.host import clock


def info(event: str, **fields: object) -> None:
    """Something that went as it should."""
    _write("info", event, fields)


def warning(event: str, **fields: object) -> None:
    """Something that somebody may have to look at."""
    _write("warning", event, fields)


def _write(level: str, event: str, fields: dict[str, object]) -> None:
    line = {"at": clock.now(), "level": level, "event": event}
    text = msgspec.json.encode({**line, **_encodable(fields)}, enc_hook=str).decode()
    with suppress(OSError, ValueError):
        # A log that is full or closed must cost neither an order nor its outcome.
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _encodable(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields, with escapes for what a path or a message has and JSON has not."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
