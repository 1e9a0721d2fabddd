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


class Power(Protocol):
    """Both raise `SteadError` when the system does not take it."""

    def tell(self, text: str) -> None:
        """Show a text to everybody who is logged in."""

    def act(self, verb: str) -> None:
        """Do one of `VERBS` now. It may return before it has happened."""


def act_argv(verb: str, system: str = sys.platform) -> Sequence[str]:
    """The program that reboots a machine, or switches it off."""
    if system == "win32":
        return ("shutdown.exe", "/r" if verb == "reboot" else "/s", "/t", "0")
    if verb == "reboot":
        return ("shutdown", "-r", "now")
    # `-P` alone is no shutdown for the init of old, and unknown to macOS.
    return ("shutdown", "-h", "now") if system == "darwin" else ("shutdown", "-h", "-P", "now")


def tell_argv(system: str = sys.platform) -> Sequence[str]:
    """The program that shows everybody what it reads from standard input."""
    return ("msg.exe", "*") if system == "win32" else ("wall",)


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
        words = f"{text}\n".encode()
        self.run(*tell_argv(self.system), stdin=words, timeout=TOLD_WITHIN_S).checked()

    def act(self, verb: str) -> None:
        """See `Power`."""
        if verb not in VERBS:
            raise SteadError(f"{verb[:40]!r} is no way to end", code=Code.INVALID)
        self.run(*act_argv(verb, self.system)).checked()
