"""The port to whatever runs a machine's services, and what it says of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from protocol.errors import Code, DeniedError, InvalidError, SteadError

VERBS = ("start", "stop", "restart", "enable", "disable")
OWN = "stead-agent"
_OTHER_UNITS = {"socket", "target", "device", "mount", "automount", "swap", "timer", "path"} | {
    "slice",
    "scope",
    "snapshot",
}
_NAME = re.compile(r"[A-Za-z0-9_.:\\][A-Za-z0-9_.:\\@+-]{0,249}")


class ServiceError(SteadError):
    """A service is not there, or did not do what it was told."""

    code = Code.PRECONDITION


class Status(msgspec.Struct, frozen=True):
    """A service as its manager knows it. `start` is whether it starts by itself, in the
    manager's own word; `detail` is what the manager says beyond `state`. `pid` is 0 for none.
    """

    name: str
    description: str
    state: str
    start: str
    detail: str = ""
    pid: int = 0
    memory_bytes: int | None = None
    restarts: int | None = None
    since: str = ""


class ServiceManager(Protocol):
    """Shows services, and starts and stops them. All raise `SteadError`."""

    def checked_name(self, name: str) -> str:
        """A service's name as this manager has it; `InvalidError` when it cannot be one."""

    def show(self, names: Sequence[str]) -> list[Status]:
        """The services of these names; NOT_FOUND names the first that there is not."""

    def act(self, verb: str, name: str) -> None:
        """Do one of `VERBS`, to its end. `ServiceError` has what the manager said."""


def unit_name(name: str) -> str:
    """A service's name without `.service`; `InvalidError` when it cannot be one.

    Nothing that gets through is an option, a path, a pattern, or a unit of another kind.

    >>> unit_name("nginx.service"), unit_name("getty@tty1")
    ('nginx', 'getty@tty1')
    """
    bare = name.removesuffix(".service")
    if not _NAME.fullmatch(bare) or ".." in bare:
        raise InvalidError(f"{name[:80]!r} cannot be the name of a service")
    if bare.rpartition(".")[2] in _OTHER_UNITS:
        raise InvalidError(f"{name[:80]!r} is a unit of another kind than a service")
    return bare


def check_order(verb: str, name: str, checked_name: Callable[[str], str]) -> str:
    """The service's bare name; INVALID for another verb, DENIED for the agent's own end."""
    bare = checked_name(name)
    if verb not in VERBS:
        raise InvalidError(f"{verb[:40]!r} is nothing to do to a service; {', '.join(VERBS)} are")
    # Windows makes no difference between large letters and small ones.
    if bare.lower() == OWN and verb not in ("start", "enable"):
        raise DeniedError("the agent does not end itself: nobody could reach this machine then")
    return bare
