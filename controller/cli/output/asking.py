"""Ask before something is done: the one way, for every command that asks."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import rich_click as click

from controller.cli.output.emit import note, printable
from protocol.errors import InvalidError


def ask(question: str, *, yes: bool, first: str = "", shown: Iterable[str] = ()) -> None:
    """Have the person agree, unless they said `--yes`; exits 2 when the answer is no.

    `shown` are lines to read before the question. Raises as `require_somebody`.
    """
    if yes:
        return
    require_somebody(question, first)
    for line in shown:
        note(line)
    click.confirm(printable(question), abort=True, err=True)


def require_somebody(question: str, first: str = "") -> None:
    """Raise INVALID when there is nobody to ask; `first` is what to do before `--yes` then.

    What comes through a pipe is no answer: it was written before the question.
    """
    if not sys.stdin.isatty():
        step = f"{first}, then add --yes" if first else "add --yes"
        raise InvalidError(f"{question} Nobody is there to ask: {step}")
