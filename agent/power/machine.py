"""The port to a machine's switch and to the people who sit at it, and how systems do that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.host.process import Run
from protocol.errors import Code, InvalidError, SteadError

VERBS = ("reboot", "shutdown")
NOTICE_CHARACTERS = 1000
TOLD_WITHIN_S = 30.0
TOLD_S = 60
"""How long Windows leaves a text on the screen."""
SHOWN_S = 30
"""How long Windows shows its own notice, when there is no way back any more."""
COMMENT_CHARACTERS = 512
"""The longest comment that Windows' shutdown takes."""


class Power(Protocol):
    """Both raise `SteadError` when the system does not take it."""

    def tell(self, text: str) -> None:
        """Show a text to everybody who is logged in."""

    def act(self, verb: str, notice: str) -> None:
        """Do one of `VERBS` now. It may return before it has happened.

        `notice` is shown and recorded where the system does that itself.
        """


def act_argv(verb: str, notice: str, system: str = sys.platform) -> Sequence[str]:
    """The program that reboots a machine, or switches it off.

    Windows shows its own notice for as long as it is told to wait, on every edition, and closes
    programs that would have a word to say (`/f`): people have been told. `/d` is in the log
    that it was planned.
    """
    if system == "win32":
        words = one_line(notice)[:COMMENT_CHARACTERS] or "Ordered by an administrator."
        how = "/r" if verb == "reboot" else "/s"
        return ("shutdown.exe", how, "/f", "/t", str(SHOWN_S), "/d", "p:4:1", "/c", words)
    if system == "darwin":
        words = one_line(notice)
        how = "-r" if verb == "reboot" else "-h"
        return ("shutdown", how, "now", *filter(None, (words,)))
    if verb == "reboot":
        return ("shutdown", "-r", "now")
    # `-P` alone is no shutdown for the init of old.
    return ("shutdown", "-h", "-P", "now")


def tell_argv(text: str, system: str = sys.platform) -> Sequence[str]:
    """The program that shows everybody a text: from its arguments on Windows, where what it
    reads is in an old code page, and from standard input elsewhere.
    """
    if system != "win32":
        return ("wall",)
    # Never as the first word, where a slash would make it an option.
    return ("msg.exe", "*", f"/TIME:{TOLD_S}", f"Stead: {one_line(text)}")


def one_line(text: str) -> str:
    """A text without ends of lines, which not every program takes in an argument."""
    return " ".join(text.split())


def checked_notice(notice: str) -> str:
    """The notice as it is shown: nothing in it steers a terminal. INVALID when it is too long."""
    if len(notice) > NOTICE_CHARACTERS:
        raise InvalidError(f"a notice has at most {NOTICE_CHARACTERS} characters")
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in notice)


@dataclass(frozen=True, slots=True)
class SystemPower:
    """See `Power`: by the system's own programs."""

    run: Run
    system: str = sys.platform

    def tell(self, text: str) -> None:
        """See `Power`."""
        words = b"" if self.system == "win32" else f"{text}\n".encode()
        argv = tell_argv(text, self.system)
        self.run(*argv, stdin=words, timeout=TOLD_WITHIN_S).checked()

    def act(self, verb: str, notice: str) -> None:
        """See `Power`."""
        if verb not in VERBS:
            raise SteadError(f"{verb[:40]!r} is no way to end", code=Code.INVALID)
        self.run(*act_argv(verb, notice, self.system)).checked()
