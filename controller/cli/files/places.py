"""Where files go: the paths of machines, and the places here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from controller.cli.output.entries import text_of
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import check_name
from protocol.v1.operator_pb2 import Machine

STANDARD_OUTPUT = "-"


def remote_path(text: str) -> bytes:
    """The path in a machine's own bytes; INVALID for one that is not absolute.

    >>> remote_path("/etc/hosts")
    b'/etc/hosts'
    """
    path = os.fsencode(text)
    name = path.rpartition(b"/")[2]
    if not path.startswith(b"/") or name in (b"", b".", b"..") or b"\0" in path:
        raise InvalidError(f"{text[:200]!r} does not name a file by its whole path")
    return path


def local_places(machines: Sequence[Machine], path: bytes, local: str) -> dict[str, Path | None]:
    """Where each machine's file goes, by its id; None is standard output."""
    name = os.fsdecode(path.rpartition(b"/")[2])
    if len(machines) == 1 and not local.endswith("/"):
        if local == STANDARD_OUTPUT:
            return {machines[0].machine_id: None}
        place = Path(local or name)
        place = place / name if place.is_dir() else place
        return {machines[0].machine_id: place}
    if local == STANDARD_OUTPUT:
        raise InvalidError("standard output takes the file of one machine; name a directory")
    if not local:
        raise InvalidError(f"{len(machines)} machines are meant: name a directory for their files")
    if len(machines) == 1:
        return {machines[0].machine_id: Path(local) / name}
    return {m.machine_id: Path(local) / check_name(m.name) / name for m in machines}


def check_free(places: Iterable[Path | None]) -> None:
    """Raise ALREADY_EXISTS when one of them is taken."""
    for place in places:
        if place is not None and place.exists():
            raise taken(place)


def taken(place: Path) -> SteadError:
    """Why a local file is not written."""
    return SteadError(
        f"{text_of(os.fsencode(place))} is there already; add --overwrite to replace it",
        code=Code.ALREADY_EXISTS,
    )
