"""The options that make an order a standing one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import rich_click as click

from controller.cli.options.spans import Span
from controller.cli.options.usual import Times, Until
from protocol.codec import to_ms
from protocol.errors import InvalidError
from protocol.standing import LONGEST, MOST_RUNS, Standing

F = TypeVar("F", bound=Callable[..., Any])
_NEEDS_EVERY = ("until", "max_runs", "standing_spread", "standing_name")


def repeating(command: F) -> F:
    """Add `--every` and its bounds to a command."""
    options = (
        click.option(
            "--every",
            type=Times(),
            metavar="SCHEDULE",
            help="Make it a standing order: each machine does it by itself, hourly, daily, weekly "
            "or at the times of '30 2 * * 1-5'.",
        ),
        click.option(
            "--until",
            type=Until(),
            metavar="WHEN",
            help=f"When a standing order ends: 2027-01-31, or 90d; at most {LONGEST.days} days.",
        ),
        click.option(
            "--max-runs",
            type=click.IntRange(1, MOST_RUNS),
            help="No more runs than so many on each machine.",
        ),
        click.option(
            "--spread",
            "standing_spread",
            type=Span(),
            help="Each machine begins at a moment of its own within this time.",
        ),
        click.option(
            "--name", "standing_name", metavar="NAME", default="", help="What to call it in lists."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def standing_of(options: Mapping[str, Any], now: datetime) -> Standing | None:
    """The bounds among a command's options; None for an order that is carried out once.

    Raises `InvalidError` for options that do not go together.
    """
    if not options.get("every"):
        if any(options.get(name) for name in _NEEDS_EVERY):
            raise InvalidError(
                "--until, --max-runs, --spread and --name are for standing orders: add --every"
            )
        return None
    until = options["until"]
    if until is None:
        raise InvalidError("a standing order has an end: add --until, such as --until 90d")
    if until - now > LONGEST:
        raise InvalidError(f"a standing order ends within {LONGEST.days} days: sign it anew then")
    spread: timedelta = options["standing_spread"] or timedelta()
    return Standing(
        options["every"],
        to_ms(until),
        options["max_runs"] or 0,
        int(spread.total_seconds()),
        options["standing_name"],
    )


def render_standing(standing: Standing | None) -> str:
    """How often and how long, for people; empty for an order that is carried out once."""
    if standing is None:
        return ""
    most = f", at most {standing.max_runs} times" if standing.max_runs else ""
    most += f", spread over {standing.spread_s} s" if standing.spread_s else ""
    most += f", called {standing.name}" if standing.name else ""
    end = f"{standing.ends_at.astimezone():%Y-%m-%d %H:%M}"
    return f", again and again ({standing.schedule}) until {end}{most}"
