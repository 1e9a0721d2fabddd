"""Bring what machines sent of a get to its places, going on where an earlier run was killed."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from controller.authority.durable import sync_directory
from controller.cli.files.begun import Get
from controller.cli.files.parcels import PASSING, Parcel
from controller.cli.files.places import taken
from controller.cli.orders.outcomes import result_of, task_rows
from controller.cli.output.emit import from_wire_ms, note
from controller.cli.output.entries import text_of
from controller.cli.output.meter import meter
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId
from protocol.parcel import ParcelDamagedError
from protocol.v1.job_pb2 import Job, Task

_OPENED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


FRESH = timedelta(hours=1)
"""Who gives the same command later than that wants the file as it is, not as it was."""


def read_long_ago(job: Job, now: datetime) -> datetime | None:
    """When a machine read its file, where that is longer ago than `FRESH`."""
    ends = (task.ended_at_ms for task in job.tasks if task.state == "succeeded")
    read = from_wire_ms(min(ends, default=0))
    return read if read is not None and now - read > FRESH else None


@dataclass(slots=True)
class Brought:
    """What became of each machine's file: `rows` to show, `lost` of those that were sent.

    `worth_going_on`: another run brings what this one did not.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0
    worth_going_on: bool = False


def bring(
    job: Job,
    get: Get,
    parcel: Parcel,
    places: Mapping[str, Path | None],
    *,
    overwrite: bool,
) -> Brought:
    """Fetch what machines sent; a place that is None is standard output.

    A controller that stays away ends it; what came until then stays for the next run.
    """
    brought = Brought()
    for task, row in zip(job.tasks, task_rows(job), strict=True):
        place = places[task.machine_id]
        brought.rows.append(row | {"bytes": None, "file": None})
        if task.state != "succeeded":
            continue
        found = brought.rows[-1]
        try:
            size = _size_of(task)
            if task.machine_id not in get.got:
                _bring_one(MachineId(task.machine_id), size, get, parcel, place, overwrite)
            found |= {"bytes": size, "file": place and text_of(os.fsencode(place))}
        except (SteadError, OSError) as error:
            if isinstance(error, SteadError) and error.code in PASSING:
                raise
            brought.lost += 1
            is_there = isinstance(error, SteadError) and error.code is Code.ALREADY_EXISTS
            brought.worth_going_on |= is_there or isinstance(error, OSError)
            found |= {"state": "failed", "message": str(error)}
            note(f"{task.machine_name}: {error}")
    return brought


def _size_of(task: Task) -> int:
    size = result_of(task).get("bytes")
    if not isinstance(size, int) or size < 0:
        raise InvalidError("the machine's answer cannot be read; is its agent of another release?")
    return size


def _bring_one(
    machine: MachineId, size: int, get: Get, parcel: Parcel, place: Path | None, overwrite: bool
) -> None:
    key = get.begun.keys[machine]
    with meter("fetch", size) as told:
        if place is None:
            parcel.fetch(machine, size, key, sys.stdout.buffer, told)
            sys.stdout.buffer.flush()
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        part = get.part_of(machine)
        with os.fdopen(_opened(part), "r+b") as file:
            try:
                parcel.fetch(machine, size, key, file, told, goes_on=True)
            except ParcelDamagedError:
                part.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
    put_in_place(part, place, overwrite=overwrite)
    get.fetched(machine)


def _opened(part: Path) -> int:
    """A part file that is this person's own and no other name of something."""
    fd = os.open(part, _OPENED, 0o600)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
        return fd
    os.close(fd)
    raise SteadError(f"{part} is somebody else's; look at who may write there", code=Code.DENIED)


def put_in_place(part: Path, place: Path, *, overwrite: bool) -> None:
    """Give a file that is complete its name, durably; ALREADY_EXISTS when that is taken."""
    if overwrite:
        part.replace(place)
    else:
        try:
            os.link(part, place)
        except FileExistsError:
            raise taken(place) from None
        part.unlink()
    sync_directory(place.parent)
