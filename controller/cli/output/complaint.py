"""What went wrong, said once on standard error: a line for people, an object for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rich_click as click

from protocol.shown import encode_json

USAGE = "usage"
NOTHING_DONE = "nothing_done"
INTERRUPTED = "interrupted"
SYSTEM = "system"
"""What is said for a code where no error of ours has one of `protocol.errors.Code`."""


@dataclass(frozen=True)
class Complaint:
    """How a command says what went wrong. `as_json`: its output was to be JSON."""

    as_json: bool

    def say(self, message: str, exit_code: int, code: str) -> int:
        """Say it; the exit code, to end with."""
        if self.as_json:
            said = {"error": code, "message": message, "exit_code": exit_code}
            line = encode_json(said).decode()
        else:
            folded = " ".join(message.split())
            line = f"error: {''.join(c if c.isprintable() else '?' for c in folded)}"
        click.echo(line, err=True)
        return exit_code


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether JSON is asked for, also in a command that click could not make out."""
    asked = ""
    for place, word in enumerate(arguments):
        if word == "--":
            break
        if word in {"--output", "-o"}:
            asked = "".join(arguments[place + 1 : place + 2])
        elif word.startswith("--output="):
            asked = word.partition("=")[2]
        elif word.startswith("-o") and word[2:] in {"json", "jsonl"}:
            asked = word[2:]
    return asked in {"json", "jsonl"}
