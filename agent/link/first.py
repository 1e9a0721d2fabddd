"""The first start of a copied image: enroll with the token that was left in it."""

from __future__ import annotations

import random
import time
from datetime import timedelta

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.files import read_if_there, sync_directory
from agent.host.sd_notify import notify
from agent.link import backoff
from agent.link.enroll import enroll, is_enrolled
from agent.version import VERSION
from protocol.errors import Code, SteadError

FINAL = frozenset(
    {Code.TOKEN_INVALID, Code.TOKEN_USED, Code.TOKEN_EXPIRED, Code.WRONG_PIN, Code.DENIED}
)
"""What another try in a moment does not change; it is tried again all the same, seldom."""


SIGN_S = 5.0


def enroll_first(home: AgentHome, journal: bytes) -> None:
    """Enroll a machine that is not, if there is a token, however long that takes.

    PRECONDITION when it is not enrolled and has no token. The token goes once it was used, and
    also from a machine that is enrolled.
    """
    failures = 0
    while not is_enrolled(home):
        token = read_if_there(home.first_token)
        if token is None:
            raise SteadError(
                f"this machine is not enrolled: {home.key} is not there; run `stead-agent enroll`",
                code=Code.PRECONDITION,
            )
        try:
            text = token.decode(errors="replace").strip()
            enroll(text, home, version=VERSION, now=clock.now(), journal=journal)
        except SteadError as error:
            failures += 1
            wait = _wait(error, failures)
            log.warning("not_enrolled_yet", code=error.code, reason=str(error), wait_s=wait.seconds)
            _pause(wait, str(error))
        else:
            log.info("enrolled", version=VERSION)
    if home.first_token.exists():
        home.first_token.unlink()
        sync_directory(home.path)


def _pause(wait: timedelta, reason: str) -> None:
    """Wait; the service manager hears that this is no standstill. A signal ends the process."""
    notify("READY=1")
    notify(f"STATUS=not enrolled yet: {reason}")
    until = clock.monotonic() + wait.total_seconds()
    while (left := until - clock.monotonic()) > 0:
        notify("WATCHDOG=1")
        time.sleep(min(left, SIGN_S))


def _wait(error: SteadError, failures: int) -> timedelta:
    if error.code in FINAL:
        return backoff.wait_when_parked(chance=random.random())  # noqa: S311 - no secret
    return backoff.wait_after(failures, chance=random.random())  # noqa: S311 - no secret
