"""Every command of `stead`, found through click, and words with which each can be typed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from controller.cli.main import COMMANDS


@dataclass(frozen=True)
class Typed:
    """A command that does something, by the words that lead to it."""

    path: tuple[str, ...]
    command: click.Command

    @property
    def has_output(self) -> bool:
        """Whether it gives JSON where that is asked for."""
        return any(one.name == "output" for one in self.command.params)

    def words(self, *more: str, json: bool = False, **others: str) -> list[str]:
        """It with all that it takes, and no questions asked; `others` are instead of `WORDS`."""
        said = {**WORDS, **others}
        names = {one.name for one in self.command.params}
        options = ["--yes"] if "yes" in names else []
        options += ["--output", "json"] if json and self.has_output else []
        arguments: list[str] = []
        for one in self.command.params:
            if isinstance(one, click.Argument):
                arguments.append(said[str(one.name)])
            elif one.required:
                options += [one.opts[0], said[str(one.name)]]
        options += TOGETHER.get(self.path, ())
        return [*self.path, *options, *more, "--", *arguments]


WORDS = {
    "addresses": "127.0.0.1:9,127.0.0.1:10",
    "arguments": "word",
    "argv": "true",
    "file": "a-file",
    "files": "a-file",
    "job": "or_00000000000000000000000000",
    "keys": "a-file",
    "local": "a-file",
    "machine": "web-01",
    "name": "web-02",
    "names": "cron",
    "new": "latest",
    "objects": "a-folder",
    "old": "latest",
    "operator": "eve",
    "order": "or_00000000000000000000000000",
    "other": "web-02",
    "output_file": "new-file",
    "packages": "openssl",
    "path": "/etc/hostname",
    "paths": "/etc/hostname",
    "point": "rp_00000000000000000000000000",
    "points": "rp_00000000000000000000000000",
    "process": "4711:81230-5f1c2a9b",
    "reason": "why",
    "remote": "/tmp/remote",
    "role": "helpdesk",
    "section": "cpu",
    "selector": "all",
    "tags": "+web",
    "tenant": "acme",
    "token": "tk_00000000000000000000000000",
    "where": "a-folder",
    "whose": "operator",
}
"""By the names of arguments and of options that have to be there."""

TOGETHER: Mapping[tuple[str, ...], Sequence[str]] = {
    ("backup", "forget"): ("--reason", "why"),
    ("backup", "tag"): ("--add", "kept"),
    ("controller", "init"): ("--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0"),
    ("script",): ("--shell", "sh"),
    ("logs",): ("--unit", "cron"),
}
"""What else a command wants of several that it could do."""


def commands() -> Iterator[Typed]:
    """All of them."""
    for name in COMMANDS:
        module = importlib.import_module(f"controller.cli.commands.{name}")
        yield from _below((name,), module.command)


def _below(path: tuple[str, ...], command: click.Command) -> Iterator[Typed]:
    if not isinstance(command, click.Group):
        yield Typed(path, command)
        return
    for name, child in command.commands.items():
        yield from _below((*path, name), child)
