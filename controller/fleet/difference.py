"""Tell what differs between two inventories, row by row.

Pure: sections as decoded JSON come in, changes come out. A row of a table is known
by its natural key, so a package with a new version is one change and not two; where
several rows share a key, the equal ones are matched first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

KEYS: Mapping[str, Sequence[str]] = {
    "packages.packages": ("name", "arch", "manager"),
    "services.services": ("name",),
    "ports.ports": ("protocol", "address", "port"),
    "disks.devices": ("name",),
    "filesystems.mounts": ("path", "device"),
    "network.interfaces": ("name",),
    "network.gateways": ("address", "interface"),
    "memory.swaps": ("path",),
    "memory.modules": ("slot",),
    "users.logins": ("name", "terminal"),
    "updates.updates": ("name", "arch"),
    "updates.held": ("name", "arch"),
}
"""What names a row, by section and table; a table that is not here falls back on `_GUESS`."""

_GUESS = ("name", "path", "id", "slot")


class Kind(StrEnum):
    """What became of something."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `what` names a row or a field within its section.

    `before` and `after` hold what differs and nothing else: fields of the row for a
    change, the whole row for one that came or went.
    """

    section: str
    kind: Kind
    what: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What became of each section, given section name → decoded body.

    >>> a = {"cpu": {"status": "ok", "facts": {"cores": 2}}}
    >>> b = {"cpu": {"status": "ok", "facts": {"cores": 4}}}
    >>> [(c.what, c.before, c.after) for c in difference(a, b)]
    [('cores', {'cores': 2}, {'cores': 4})]
    """
    found: list[Change] = []
    for section in sorted(before.keys() | after.keys()):
        then, now = before.get(section), after.get(section)
        if then is None:
            found.append(Change(section, Kind.ADDED, "section"))
        elif now is None:
            found.append(Change(section, Kind.REMOVED, "section"))
        elif then.get("status") != now.get("status"):
            found.append(Change(section, Kind.CHANGED, "status", _status(then), _status(now)))
        else:
            found.extend(_values(section, "", then.get("facts"), now.get("facts")))
    return found


def _status(body: Mapping[str, Any]) -> dict[str, Any]:
    said = {"status": body.get("status")}
    return {**said, "reason": body["reason"]} if body.get("reason") else said


def _values(section: str, path: str, then: Any, now: Any) -> Iterator[Change]:
    if then == now:
        return
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *(name for name in now if name not in then)]:
            below = f"{path}.{name}" if path else name
            yield from _values(section, below, then.get(name), now.get(name))
    elif isinstance(then, list) and isinstance(now, list) and _is_table(then, now):
        yield from _rows(section, path, then, now)
    else:
        yield _field(section, path, then, now)


def _field(section: str, path: str, then: Any, now: Any) -> Change:
    name = path.rpartition(".")[2]
    before, after = {name: then}, {name: now}
    # Null is "not learnt" and an empty list is "none": between the two is a change.
    if _is_nothing(then) and not _is_nothing(now):
        return Change(section, Kind.ADDED, path, {}, after)
    if _is_nothing(now) and not _is_nothing(then):
        return Change(section, Kind.REMOVED, path, before, {})
    if isinstance(then, list) and isinstance(now, list):
        before = {name: [value for value in then if value not in now]}
        after = {name: [value for value in now if value not in then]}
    return Change(section, Kind.CHANGED, path, before, after)


def _is_nothing(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _is_table(*sides: Sequence[Any]) -> bool:
    return any(sides) and all(isinstance(row, dict) for side in sides for row in side)


def _rows(
    section: str, path: str, then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> Iterator[Change]:
    names = KEYS.get(f"{section}.{path}") or _guess(then, now)
    old, new = _by_key(then, names), _by_key(now, names)
    for key in sorted(old.keys() | new.keys()):
        gone, came = _unmatched(old.get(key, []), new.get(key, []))
        what = f"{path}: {' '.join(key)}"
        # Rows in the place of others, one for one: two kernels of which one was replaced.
        for left, right in zip(gone, came, strict=False):
            differs = [n for n in [*left, *right] if left.get(n) != right.get(n)]
            yield Change(
                section,
                Kind.CHANGED,
                what,
                {name: left.get(name) for name in differs},
                {name: right.get(name) for name in differs},
            )
        for row in gone[len(came) :]:
            yield Change(section, Kind.REMOVED, what, row, {})
        for row in came[len(gone) :]:
            yield Change(section, Kind.ADDED, what, {}, row)


def _guess(*sides: Sequence[dict[str, Any]]) -> Sequence[str]:
    rows = [row for side in sides for row in side]
    for name in _GUESS:
        if all(name in row for row in rows):
            return (name,)
    return ()


def _by_key(
    rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in rows:
        key = tuple(str(row.get(name) or "") for name in names) or (
            json.dumps(row, sort_keys=True, ensure_ascii=False),
        )
        found[key].append(row)
    return dict(found)


def _unmatched(
    then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is left on either side once equal rows are taken away, as often as they occur."""
    left, came = list(then), []
    for row in now:
        if row in left:
            left.remove(row)
        else:
            came.append(row)
    return left, came
