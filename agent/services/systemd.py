"""Services of systemd, by `systemctl`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.host.process import Run
from agent.services.manager import ServiceError, Status, unit_name
from protocol.errors import NotFoundError

PROPERTIES = (
    "Id",
    "Description",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "UnitFileState",
    "MainPID",
    "MemoryCurrent",
    "NRestarts",
    "StateChangeTimestamp",
)
DAY_S = 86_400.0
"""A service may take as long to start as its unit allows; the order's time-out ends it."""

_UNSET = 2**64 - 1


def parse_show(output: str) -> list[dict[str, str]]:
    """The properties of each unit that `systemctl show` prints, one block for each.

    >>> parse_show("Id=a.service\\nDescription=x=y\\n\\nId=b.service\\n")
    [{'Id': 'a.service', 'Description': 'x=y'}, {'Id': 'b.service'}]
    """
    return list(_blocks(output))


def _blocks(output: str) -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in (*output.splitlines(), ""):
        name, equals, value = line.partition("=")
        if equals:
            block[name] = value
        elif not line and block:
            yield block
            block = {}


def status_of(properties: dict[str, str]) -> Status:
    """A service by its properties; `NotFoundError` when systemd knows no such unit."""
    name = properties.get("Id", "").removesuffix(".service")
    load = properties.get("LoadState", "")
    active, sub = properties.get("ActiveState", ""), properties.get("SubState", "")
    if load == "not-found":
        raise NotFoundError(f"this machine has no service {name!r}")
    result = properties.get("Result", "success")
    return Status(
        name=name,
        description=properties.get("Description", ""),
        state={"active": "done" if sub == "exited" else "running", "inactive": "stopped"}.get(
            active, active
        ),
        start=properties.get("UnitFileState") or load,
        detail=sub if result == "success" else f"{sub}, {result}",
        pid=_number(properties, "MainPID") or 0,
        memory_bytes=_number(properties, "MemoryCurrent"),
        restarts=_number(properties, "NRestarts"),
        since=properties.get("StateChangeTimestamp", ""),
    )


def _number(properties: dict[str, str], name: str) -> int | None:
    """A number; None where the release does not tell it, or has no account of it."""
    text = properties.get(name, "")
    if not text.isascii() or not text.isdecimal() or int(text) >= _UNSET:
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class Systemd:
    """See `ServiceManager`."""

    run: Run

    def checked_name(self, name: str) -> str:
        """See `ServiceManager`."""
        return unit_name(name)

    def show(self, names: Sequence[str]) -> list[Status]:
        """See `ServiceManager`."""
        units = [f"{name}.service" for name in names]
        output = self.run(
            "systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", "--", *units
        ).checked()
        return [status_of(block) for block in parse_show(output.decode(errors="replace"))]

    def act(self, verb: str, name: str) -> None:
        """See `ServiceManager`."""
        unit = f"{name}.service"
        done = self.run(
            "systemctl", "--no-pager", "--no-ask-password", verb, "--", unit, timeout=DAY_S
        )
        if done.code:
            said = done.stderr.decode(errors="replace").strip()[-1000:]
            raise ServiceError(f"systemctl {verb} {unit} ended with {done.code}: {said}")
