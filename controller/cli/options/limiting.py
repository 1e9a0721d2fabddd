"""The option that says how fast machines send a backup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from controller.cli.options.choosing import Size

F = TypeVar("F", bound=Callable[..., Any])


def limited(command: F) -> F:
    """Add `--limit-upload`."""
    return click.option(
        "--limit-upload",
        type=Size(at_least=16 * 1024),
        metavar="SIZE",
        help="Each machine sends at most so much a second, as 10M.",
    )(command)


def limit_of(options: dict[str, Any]) -> int:
    """The limit in bytes a second, taken out of a command's options; 0 for none."""
    return options.pop("limit_upload") or 0
