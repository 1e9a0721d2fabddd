"""Options that say what a backup leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from controller.cli.options.spans import Span
from controller.cli.output.emit import note
from protocol.errors import InvalidError
from protocol.selection import Rules

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"([0-9]{1,15})(?:([kmgt])(?:i?b)?|b)?\Z", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size in bytes: 500k, 2G, with units of 1024."""

    name = "size"

    def __init__(self, at_least: int = 1) -> None:
        self._at_least = at_least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it; click says what was wrong."""
        if isinstance(value, int):
            return value
        found = _SIZE.match(str(value))
        size = int(found[1]) << _UNITS[(found[2] or "").lower()] if found else 0
        if not 0 < size < 1 << 63:
            self.fail(f"{value!r} is no size; write 500k, 20M or 2G", param, ctx)
        if size < self._at_least:
            self.fail(f"{value!r} is less than {self._at_least} bytes, the least", param, ctx)
        return size


def choosing(command: F) -> F:
    """Add the options that say what a backup leaves out."""
    for option in (
        click.option(
            "--newer-than", type=Span(), metavar="TIME", help="Leave out files changed since, 1h."
        ),
        click.option(
            "--older-than", type=Span(), metavar="TIME", help="Leave out files unchanged for 365d."
        ),
        click.option(
            "--smaller-than", type=Size(), metavar="SIZE", help="Leave out smaller files."
        ),
        click.option(
            "--larger-than", type=Size(), metavar="SIZE", help="Leave out larger files, as 2G."
        ),
        click.option("--one-file-system", is_flag=True, help="Do not enter what is mounted below."),
        click.option(
            "--exclude-caches", is_flag=True, help="Leave out what a CACHEDIR.TAG calls a cache."
        ),
        click.option(
            "--no-defaults", is_flag=True, help="Take caches, swap and temporary files, too."
        ),
        click.option(
            "--include",
            "includes",
            multiple=True,
            metavar="RULE",
            help="Take back what an earlier rule leaves out; may be repeated.",
        ),
        click.option(
            "--exclude-from",
            "files",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="A file here with rules, one a line.",
        ),
        click.option(
            "--exclude",
            "excludes",
            multiple=True,
            metavar="RULE",
            help="In the syntax of .gitignore, / being the root; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def rules_of(options: dict[str, Any]) -> Rules:
    """What was said, taken out of a command's options; INVALID for what is no rule.

    Rules of files come first, then those of `--exclude`, then what is taken back.
    """
    lines: list[bytes] = []
    for file in options.pop("files"):
        try:
            lines += [line.rstrip(b"\r") for line in file.read_bytes().split(b"\n")]
        except OSError as error:
            raise InvalidError(f"{file} cannot be read: {error.strerror}") from error
    lines += [rule.encode(errors="surrogateescape") for rule in options.pop("excludes")]
    lines += [b"!" + rule.encode(errors="surrogateescape") for rule in options.pop("includes")]
    return Rules(
        exclude=tuple(line for line in lines if line.strip() and not line.startswith(b"#")),
        no_defaults=options.pop("no_defaults"),
        exclude_caches=options.pop("exclude_caches"),
        one_file_system=options.pop("one_file_system"),
        larger_than=options.pop("larger_than") or 0,
        smaller_than=options.pop("smaller_than") or 0,
        older_than_s=_seconds(options.pop("older_than")),
        newer_than_s=_seconds(options.pop("newer_than")),
    )


def say_rules(machine: str, rules: Mapping[str, Any]) -> None:
    """Name the rules in force on a machine."""
    lines = rules.get("exclude") or []
    said = [f"{len(lines)} rules: {', '.join(map(str, lines))}" if lines else "no rules"]
    for name, value in rules.items():
        if name != "exclude" and value:
            word = name.removesuffix("_s").replace("_", " ")
            unit = " s" if name.endswith("_s") else ""
            said.append(word if value is True else f"{word} {value}{unit}")
    note(f"{machine} leaves out by {'; '.join(said)}")


def _seconds(span: timedelta | None) -> int:
    return int(span.total_seconds()) if span else 0
