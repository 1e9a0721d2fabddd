"""Options that say where an ordered program runs, and how much of a machine it may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from controller.cli.options.choosing import Size
from protocol.limits import Limits

F = TypeVar("F", bound=Callable[..., Any])


def confined(command: F) -> F:
    """Add `--memory`, `--cpu` and `--nice`."""
    options = [
        click.option(
            "--memory",
            type=Size(at_least=16 * 1024 * 1024),
            metavar="SIZE",
            help="End it when it and all that it starts take more memory than this, as 512M.",
        ),
        click.option(
            "--cpu",
            type=click.IntRange(1, 409600),
            metavar="PERCENT",
            help="It and all that it starts take at most so much of one processor.",
        ),
        click.option(
            "--nice",
            type=click.IntRange(0, 19),
            metavar="0-19",
            help="How far it steps back for other programs.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def surrounded(command: F) -> F:
    """Add `--env` and `--directory`."""
    command = click.option(
        "--directory", metavar="PATH", default="", help="Where to run it. Default: /"
    )(command)
    return click.option(
        "--env",
        "environment",
        metavar="NAME=VALUE",
        multiple=True,
        help="A variable; may be repeated.",
    )(command)


def limits_of(options: dict[str, Any]) -> Limits:
    """The limits, taken out of a command's options."""
    return Limits(
        memory_bytes=options.pop("memory") or 0,
        cpu_percent=options.pop("cpu") or 0,
        nice=options.pop("nice") or 0,
    )
