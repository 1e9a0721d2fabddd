"""Options that many commands take, and the types that they parse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import rich_click as click

from controller import clock
from controller.cli.options.moment import parse_moment, parse_until
from protocol.errors import InvalidError
from protocol.schedule import parse_schedule

F = TypeVar("F", bound=Callable[..., Any])


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time; see `controller.cli.options.moment`."""

    name = "when"

    def _read(self, text: str) -> datetime:
        return parse_moment(text, now=clock.now())

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse it; click says what was wrong."""
        if isinstance(value, datetime):
            return value
        try:
            return self._read(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)


class Until(Moment):
    """A point in time to come."""

    def _read(self, text: str) -> datetime:
        return parse_until(text, now=clock.now())


class Times(click.ParamType):  # type: ignore[type-arg]
    """A schedule; see `protocol.schedule`."""

    name = "schedule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; click says what was wrong."""
        try:
            parse_schedule(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def tenant_option(command: F) -> F:
    """Add `--tenant` to a command."""
    return click.option("--tenant", metavar="NAME", default="", help="Only this tenant.")(command)


def yes_option(command: F) -> F:
    """Add `--yes` to a command that asks."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)
