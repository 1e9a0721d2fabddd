"""launchd, as far as both the agent's own service and those of others need it."""

from __future__ import annotations

import re
from collections.abc import Callable

from agent.host.process import ProgramError, Run

NOT_THERE = 113
"""What `launchctl print` ends with for a service that launchd has not loaded."""
LOOK_S = 0.25

_GONE = frozenset({0, 3, NOT_THERE})  # it is out, ESRCH: it was, launchctl's own word for that
_UNDER_WAY = 36  # EINPROGRESS: it is being ended
_SWITCH = re.compile(r'\s*"(.+)" => (\w+)')


def parse_disabled(output: str) -> dict[str, bool]:
    """Whether services are disabled, by label, as `launchctl print-disabled system` prints it.

    Before macOS 13 the words were `true` and `false`.
    """
    found = filter(None, map(_SWITCH.fullmatch, output.splitlines()))
    return {match[1]: match[2] in ("disabled", "true") for match in found}


def take_out(run: Run, label: str, *, within_s: float, wait: Callable[[float], None]) -> None:
    """Take a service out of launchd, and wait until it is.

    `bootout` may return before its process has ended, and as long as that lives nothing can
    come in under its label. Raises `ProgramError`; one that is not there is no error.
    """
    target = f"system/{label}"
    done = run("launchctl", "bootout", target, timeout=within_s)
    if done.code not in {*_GONE, _UNDER_WAY}:
        done.checked()
    left = within_s
    while run("launchctl", "print", target).code != NOT_THERE:
        if left <= 0:
            raise ProgramError(f"{label} was told to end, and is there {within_s:g} s later")
        wait(LOOK_S)
        left -= LOOK_S
