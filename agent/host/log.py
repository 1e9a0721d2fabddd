"""The agent's log: one JSON object a line on standard error, which the service manager keeps.

An event is a past-tense name with fields. Never secrets, never whole orders.
"""

from __future__ import annotations

import sys

import msgspec

from agent.host import clock


def info(event: str, **fields: object) -> None:
    """Something that went as it should."""
    _write("info", event, fields)


def warning(event: str, **fields: object) -> None:
    """Something that somebody may have to look at."""
    _write("warning", event, fields)


def _write(level: str, event: str, fields: dict[str, object]) -> None:
    line = {"at": clock.now(), "level": level, "event": event, **fields}
    sys.stderr.write(msgspec.json.encode(line, enc_hook=str).decode() + "\n")
    sys.stderr.flush()
