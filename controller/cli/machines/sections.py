"""Turn an inventory section into tables and lists that a person can read.

Pure: decoded JSON comes in, values come out; `controller.cli.output.emit` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS: Mapping[str, Sequence[str]] = {
    "packages.packages": ("name", "version", "arch", "source", "manager"),
    "services.services": ("name", "state", "start", "description"),
    "ports.ports": ("protocol", "port", "address", "programs", "user"),
    "disks.devices": ("name", "kind", "size_bytes", "model", "content", "serial"),
    "filesystems.mounts": ("path", "device", "kind", "size_bytes", "options"),
    "network.interfaces": ("name", "up", "addresses", "mac", "mtu", "kind"),
    "updates.updates": ("name", "installed", "candidate", "security", "suite", "origin"),
    "updates.held": ("name", "installed", "candidate", "security", "reason"),
    "users.logins": ("name", "terminal", "origin", "since"),
}
"""Columns of the tables whose rows have more than fits a terminal; JSON has them all."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a section says once: names and values."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a section says of each of many things."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


def parts_of(section: str, facts: Mapping[str, Any]) -> list[Fields | Rows]:
    """The fields of a section, if there are any, then its tables.

    >>> parts_of("cpu", {"cores": 2, "gaps": {}})
    [Fields(values={'cores': 2})]
    """
    fields: dict[str, Any] = {}
    tables: list[Rows] = []
    for path, value in _walk("", facts):
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(_table(section, path, value))
        elif not (path == "gaps" and not value):
            fields[path] = "none" if value in ([], {}) else value
    return ([Fields(fields)] if fields else []) + tables


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for name, below in value.items():
            yield from _walk(f"{path}.{name}" if path else str(name), below)
    else:
        yield path, value


def _table(section: str, path: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    given = [name for name in rows[0] if any(_is_something(row.get(name)) for row in rows)]
    wanted = COLUMNS.get(f"{section}.{path}", given)
    columns = [name for name in wanted if name in given] or list(rows[0])
    plain = [{name: _flat(row.get(name)) for name in columns} for row in rows]
    return Rows(f"{path} ({len(rows)})", columns, plain)


def _is_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value
