"""The options that name the programs of a backup."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import rich_click as click

from controller.cli.options.spans import Span
from protocol.errors import InvalidError
from protocol.selection import Commands, CommandStream

F = TypeVar("F", bound=Callable[..., Any])


def commanding(command: F) -> F:
    """Add `--stream`, `--before`, `--after` and `--command-timeout`."""
    options = (
        click.option(
            "--stream",
            "streams",
            multiple=True,
            metavar="PATH=PROGRAM",
            help="What the program prints becomes this file of the restore point, as "
            "'/streams/db.sql=pg_dump shop'. May be repeated.",
        ),
        click.option(
            "--before", metavar="PROGRAM", help="Runs first; when it fails there is no backup."
        ),
        click.option(
            "--after", metavar="PROGRAM", help="Runs last, whatever became of the backup."
        ),
        click.option(
            "--command-timeout",
            type=Span(),
            help="How long each of these programs may take. Default: 1h.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def commands_of(options: dict[str, Any]) -> Commands:
    """The programs, taken out of a command's options. Raises `InvalidError`."""
    streams = tuple(_stream(text) for text in options.pop("streams"))
    before = _argv("--before", options.pop("before") or "")
    after = _argv("--after", options.pop("after") or "")
    timeout: timedelta | None = options.pop("command_timeout")
    if timeout is not None and not (streams or before or after):
        raise InvalidError("--command-timeout needs a --stream, --before or --after")
    if timeout is not None and not 1 <= timeout.total_seconds() <= 7 * 24 * 3600:
        raise InvalidError("--command-timeout is between one second and seven days")
    seconds = int(timeout.total_seconds()) if timeout is not None else 0
    return Commands(streams, before, after, seconds)


def _stream(text: str) -> CommandStream:
    path, equals, program = text.partition("=")
    argv = _argv(f"--stream {path}", program)
    if not equals or not path.startswith("/") or not argv:
        raise InvalidError(
            f"--stream {text!r} is no stream; give --stream '/streams/db.sql=pg_dump shop'"
        )
    return CommandStream(path.encode("utf-8", "surrogateescape"), argv)


def _argv(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidError(f"{option}: {error}") from error
