"""The options that say how an order spreads over its machines and over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import rich_click as click

from controller.cli.options.spans import Span
from protocol.errors import InvalidError
from protocol.rollout import (
    ALL_AT_ONCE,
    Amount,
    Rollout,
    check_rollout,
    parse_amount,
    parse_batches,
)
from protocol.window import Window, parse_window


class Batches(click.ParamType):  # type: ignore[type-arg]
    """Batches; see `protocol.rollout`."""

    name = "batches"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Amount, ...]:
        """Parse them; click says what was wrong."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_batches(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)


class Limit(click.ParamType):  # type: ignore[type-arg]
    """How many machines may fail: a number, or a percentage."""

    name = "amount"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Amount:
        """Parse it; click says what was wrong."""
        if isinstance(value, Amount):
            return value
        try:
            return parse_amount(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)


ROLLOUT_OPTIONS = (
    click.option(
        "--batch",
        "batches",
        type=Batches(),
        metavar="1,10%,100%",
        help="Begin with so many machines, then with more; the last batch is 100%.",
    ),
    click.option("--soak", type=Span(), help="Wait so long after each batch."),
    click.option(
        "--max-failures",
        type=Limit(),
        metavar="N|N%",
        help="Halt when more than these have failed. With --batch: 0 unless it is said.",
    ),
)


class Opening(click.ParamType):  # type: ignore[type-arg]
    """A maintenance window; see `protocol.window`."""

    name = "window"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Window:
        """Parse it; click says what was wrong."""
        if isinstance(value, Window):
            return value
        try:
            return parse_window(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)


WINDOW_OPTIONS = (
    click.option(
        "--window",
        "windows",
        type=Opening(),
        multiple=True,
        metavar="'sat,sun 22:00-04:00'",
        help="Start it only within these hours of the machine's own time; may be repeated.",
    ),
    click.option(
        "--catch-up",
        is_flag=True,
        help="Where no window opens before --deliver-by: start it at once.",
    ),
)


def rollout_of(options: Mapping[str, Any]) -> Rollout | None:
    """The rollout among a command's options; None for every machine at once.

    Raises `InvalidError` for options that do not go together.
    """
    batches, soak, limit = (options.get(name) for name in ("batches", "soak", "max_failures"))
    if batches is None and soak is not None:
        raise InvalidError("--soak is the pause after a batch: add --batch")
    if batches is None and limit is None:
        return None
    rollout = Rollout(
        batches or ALL_AT_ONCE,
        int((soak or timedelta()).total_seconds()),
        limit or Amount(),
    )
    check_rollout(rollout)
    return rollout


def batches_of(rollout: Rollout, total: int) -> list[int]:
    """The batch of each of `total` machines when all are linked, counted from 1.

    >>> batches_of(Rollout(parse_batches("1,50%,100%")), 4)
    [1, 2, 3, 3]
    """
    sizes = [batch.at_least(total) for batch in rollout.batches]
    return [
        1 + next(batch for batch, size in enumerate(sizes) if place < size)
        for place in range(total)
    ]
