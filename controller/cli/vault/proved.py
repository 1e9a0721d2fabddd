"""How a machine stands with its drills: whether its backups were proved to restore. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from controller.cli.output.emit import render_age

RECENT = timedelta(days=35)
"""A good drill is recent for so long: a monthly one may be a few days late."""

Row = Mapping[str, Any]


def drill_state(row: Row, now: datetime) -> str:
    """How a machine stands with its drills, in one word; empty where there is nothing to prove.

    >>> from datetime import UTC
    >>> now = datetime(2026, 5, 1, tzinfo=UTC)
    >>> drill_state({"last_point_at": now, "last_drill_at": None, "drill_state": ""}, now)
    'untried'
    """
    if row["last_point_at"] is None:
        return ""
    last = row["last_drill_at"]
    if row["drill_state"] in {"wrong", "failed"}:
        return str(row["drill_state"])
    if last is None:
        return "untried"
    return "good" if now - last <= RECENT else "late"


def render_drill(row: Row, now: datetime) -> str:
    """How a machine stands with its drills, for a sentence.

    >>> from datetime import UTC
    >>> now = datetime(2026, 5, 3, tzinfo=UTC)
    >>> at = datetime(2026, 5, 1, tzinfo=UTC)
    >>> render_drill({"last_point_at": at, "last_drill_at": at, "drill_state": "good"}, now)
    'good, 2 d ago'
    """
    state = drill_state(row, now)
    match state:
        case "":
            return "nothing to drill yet"
        case "untried":
            return "untried: it was never proved that its backups restore"
        case "good" | "late":
            return f"{state}, {render_age(row['last_drill_at'], now)}"
        case _:
            return f"{state}; the last good one {render_age(row['last_drill_at'], now)}"
