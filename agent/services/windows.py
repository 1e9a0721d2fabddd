"""Services of Windows: psutil describes them, the service control manager changes them.

A change is only begun by the manager; it is waited for here, for as long as the service
says that it gets on (`dwCheckPoint`, `dwWaitHint`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.services.manager import ServiceError, Status
from agent.services.scm import STATUS_BYTES, Scm
from protocol.errors import InvalidError, NotFoundError

LONGEST_NAME = 256
LOOK_S = 0.25
PATIENCE_S = 30.0
"""A service that gets on may take as long as it says; one that says nothing, so long."""

_STATUS = struct.Struct("<9I")
_OWN_PROCESS = 0x10
_STATES = {
    1: "stopped",
    2: "starting",
    3: "stopping",
    4: "running",
    5: "continuing",
    6: "pausing",
    7: "paused",
}
_PASSING = frozenset({"starting", "stopping", "continuing", "pausing"})
_BY_ITSELF, _NOT_AT_ALL = 2, 4

_SERVICE_SPECIFIC, _NEVER_STARTED = 1066, 1077
_ALREADY_RUNNING, _NOT_RUNNING = 1056, 1062
_SAID = {
    5: "access is denied: the agent does not run as LocalSystem or as an administrator",
    1051: "other services that run depend on it; stop those first",
    1052: "it does not take this request in the state it is in",
    1058: "it is disabled, or nothing that it depends on is enabled",
    1061: "it takes no requests just now",
    1068: "a service or group that it depends on did not start",
}


class Condition(NamedTuple):
    """A `SERVICE_STATUS_PROCESS`. `error` is why it stopped, 0 when it just did."""

    state: str
    error: int
    checkpoint: int
    wait_s: float
    pid: int
    shares: bool

    @property
    def passing(self) -> bool:
        """Whether it is on its way from one state to another."""
        return self.state in _PASSING


def parse_status(data: bytes) -> Condition:
    """Read a `SERVICE_STATUS_PROCESS`; the fields are those of winsvc.h, nine words of 32 bits.

    >>> parse_status(struct.pack("<9I", 0x20, 4, 1, 0, 0, 0, 0, 812, 0))
    Condition(state='running', error=0, checkpoint=0, wait_s=0.0, pid=812, shares=True)
    """
    if len(data) != STATUS_BYTES:
        raise InvalidError(f"Windows told a service's state in {len(data)} bytes")
    kind, state, _, exit_code, specific, checkpoint, hint_ms, pid, _ = _STATUS.unpack(data)
    error = specific if exit_code == _SERVICE_SPECIFIC else exit_code
    return Condition(
        state=_STATES.get(state, "unknown"),
        error=0 if exit_code == _NEVER_STARTED else error,
        checkpoint=checkpoint,
        wait_s=hint_ms / 1000,
        pid=pid,
        shares=not kind & _OWN_PROCESS,
    )


@dataclass(frozen=True, slots=True)
class WindowsServices:
    """See `ServiceManager`.

    `described` gives psutil's name, display_name and start_type of a service, and raises
    `NotFoundError`; `memory` how many bytes a process has. `wait` takes seconds.
    """

    scm: Scm
    described: Callable[[str], Mapping[str, Any]]
    memory: Callable[[int], int | None]
    wait: Callable[[float], None]

    def checked_name(self, name: str) -> str:
        """See `ServiceManager`. The manager allows all but slashes; we want it printable."""
        if not 0 < len(name) <= LONGEST_NAME or set("/\\") & set(name) or not name.isprintable():
            raise InvalidError(f"{name[:80]!r} cannot be the name of a service")
        return name

    def show(self, names: Sequence[str]) -> list[Status]:
        """See `ServiceManager`."""
        return [self._status(name) for name in names]

    def _status(self, name: str) -> Status:
        told = self.described(name)
        found = self._condition(name)
        failed = found.state == "stopped" and found.error
        alone = found.pid and not found.shares
        return Status(
            name=str(told["name"]),
            description=str(told["display_name"]),
            state="failed" if failed else found.state,
            start=str(told["start_type"]),
            detail=f"error {found.error}" if failed else "",
            pid=found.pid,
            memory_bytes=self.memory(found.pid) if alone else None,
        )

    def _condition(self, name: str) -> Condition:
        try:
            return parse_status(self.scm.status(name))
        except OSError as error:
            raise _problem(name, "look at", error) from error

    def act(self, verb: str, name: str) -> None:
        """See `ServiceManager`."""
        if verb in ("enable", "disable"):
            kind = _BY_ITSELF if verb == "enable" else _NOT_AT_ALL
            self._ask(name, verb, lambda: self.scm.set_start(name, kind), harmless=0)
        if verb in ("stop", "restart"):
            self._ask(name, "stop", lambda: self.scm.stop(name), harmless=_NOT_RUNNING)
            self._settled(name, "stop")
        if verb in ("start", "restart"):
            self._ask(name, "start", lambda: self.scm.start(name), harmless=_ALREADY_RUNNING)
            self._settled(name, "start")

    def _ask(self, name: str, verb: str, call: Callable[[], None], *, harmless: int) -> None:
        try:
            call()
        except OSError as error:
            if getattr(error, "winerror", None) != harmless:
                raise _problem(name, verb, error) from error

    def _settled(self, name: str, verb: str) -> None:
        """Wait until it is on its way no more; `ServiceError` when it does not get on."""
        patience, last = 0.0, -1
        while (found := self._condition(name)).passing:
            if found.checkpoint != last:
                last, patience = found.checkpoint, max(found.wait_s, PATIENCE_S)
            if patience <= 0:
                raise ServiceError(f"{name} is {found.state} after {verb} and gets no further")
            self.wait(LOOK_S)
            patience -= LOOK_S


def _problem(name: str, verb: str, error: OSError) -> NotFoundError | ServiceError:
    number = getattr(error, "winerror", None)
    if number == 1060:  # ERROR_SERVICE_DOES_NOT_EXIST
        return NotFoundError(f"this machine has no service {name!r}")
    said = _SAID.get(number or 0) or error.strerror or str(error)
    return ServiceError(f"cannot {verb} {name}: {said} (error {number})")
