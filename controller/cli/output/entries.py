"""Say what lies in a restore point, as `ls -l` would. Pure."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.cli.output.emit import render_bytes
from protocol.errors import InvalidError, NotFoundError
from protocol.vault.entry import Entry, Kind, as_file
from protocol.vault.path import join

_SHOWN_STREAMS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def entry_row(parent: bytes, entry: Entry) -> dict[str, Any]:
    """An entry as a record. Bytes of names that are no UTF-8 are escaped."""
    return {
        "mode": stat.filemode(entry.mode),
        "owner": entry.owner.user or str(entry.owner.uid),
        "group": entry.owner.group or str(entry.owner.gid),
        "size_bytes": entry.size if entry.kind is Kind.FILE else None,
        "modified_at": time_of(entry.mtime_ns),
        "name": text_of(entry.name) or "/",
        "path": "/" + text_of(join(parent, entry.name)),
        "target": text_of(entry.target) or None,
        "kind": entry.kind.name.lower(),
        "changed_while_read": entry.changed_while_read,
        "streams": [
            {"name": text_of(stream.name), "size_bytes": stream.size} for stream in entry.streams
        ],
    }


def render_name(row: Any, *, whole: bool) -> str:
    """A name as a listing shows it: with what a link points to, a slash for a folder, and the
    first named streams with their sizes in brackets.
    """
    name = str(row["path"] if whole else row["name"])
    if row["target"]:
        return f"{name} -> {row['target']}"
    if row["kind"] == "directory" and not name.endswith("/"):
        name += "/"
    streams = [f"{one['name']} {render_bytes(one['size_bytes'])}" for one in row["streams"]]
    more = f", {len(streams) - _SHOWN_STREAMS} more" if len(streams) > _SHOWN_STREAMS else ""
    return f"{name} [{', '.join(streams[:_SHOWN_STREAMS])}{more}]" if streams else name


def stream_of(entry: Entry, name: str) -> Entry:
    """A named stream as if it were a file; NOT_FOUND when there is none of that name."""
    for stream in entry.streams:
        if text_of(stream.name) == name:
            return as_file(stream)
    there = ", ".join(text_of(stream.name) for stream in entry.streams[:_SHOWN_STREAMS])
    raise NotFoundError(f"it has no stream {name[:200]!r}; it has {there or 'none at all'}")


def text_of(name: bytes) -> str:
    r"""A raw name as text.

    >>> text_of(b"caf\xc3\xa9"), text_of(b"\xff")
    ('café', '\\xff')
    """
    return name.decode(errors="backslashreplace")


def time_of(nanoseconds: int) -> datetime | None:
    """A file's time in UTC; None when it is beyond what calendars know."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


def machine_paths(paths: Sequence[str]) -> tuple[bytes, ...]:
    """Absolute paths in the machine's own bytes; INVALID for others.

    >>> machine_paths(["/etc"])
    (b'/etc',)
    """
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise InvalidError(f"{path[:200]!r} is not an absolute path")
    return tuple(path.encode(errors="surrogateescape") for path in paths)
