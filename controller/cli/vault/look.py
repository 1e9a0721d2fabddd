"""A check or a scrub by a running controller, followed from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from controller.cli.operator.connection import Connection
from controller.cli.operator.streams import answers_of
from controller.cli.output.emit import emit_one, note
from controller.cli.output.exits import DONE, FAILED
from controller.cli.output.meter import meter
from controller.vault.check import Fault, describe
from protocol.errors import UnavailableError
from protocol.v1.proof_pb2 import CheckVaultRequest, Looked, ScrubVaultRequest
from protocol.vault.chunk import ChunkId

SHOWN = 20


@dataclass(slots=True)
class Look:
    """What a running controller has seen; `last` is its newest word."""

    last: Looked = field(default_factory=Looked)
    faults: list[str] = field(default_factory=list)
    damages: list[int] = field(default_factory=list)


def look(connection: Connection, tenant: str, *, mend: bool, bytes_per_s: int = 0) -> Look:
    """Have the controller look at everything, and wait for the end. A rate of 0 is none.

    Raises `UnavailableError` when the controller ended before everything was looked at.
    """
    found = Look()
    with meter("scrub" if mend else "check") as told:
        for looked in _told(connection, tenant, bytes_per_s, mend=mend):
            found.last = looked
            found.faults += [
                describe(Fault(f.object_key, ChunkId(f.chunk_id) or None, f.reason))
                for f in looked.faults
            ]
            found.damages += looked.damages
            told(looked.bytes, total=looked.total_bytes)
    if not found.last.is_done:
        raise UnavailableError("the controller went away before everything was looked at")
    return found


def _told(connection: Connection, tenant: str, bytes_per_s: int, *, mend: bool) -> Iterator[Looked]:
    if mend:
        mending = ScrubVaultRequest(tenant_id=tenant, bytes_per_s=bytes_per_s)
        return (response.looked for response in answers_of(connection.proofs.ScrubVault(mending)))
    looking = CheckVaultRequest(tenant_id=tenant, bytes_per_s=bytes_per_s)
    return (response.looked for response in answers_of(connection.proofs.CheckVault(looking)))


def say_look(found: Look, output: str, *, mended: bool) -> int:
    """Print what was seen, faults beside it; the exit code."""
    last = found.last
    faults = found.faults
    bad = bool(faults or found.damages)
    row: dict[str, Any] = {
        "state": "damaged" if bad else "ok",
        "packs": last.packs,
        "stored_bytes": last.bytes,
        "points": last.points,
        "damaged": last.damaged,
        "unreadable": last.unreadable,
        "put_aside": found.damages if output != "table" else len(found.damages),
        "faults": faults if output != "table" else len(faults),
    }
    emit_one(row, output)
    if output == "table":
        for said in faults[:SHOWN]:
            note(said)
        if len(faults) > SHOWN:
            note(f"and {len(faults) - SHOWN} more; --output json names all of them")
    if found.damages:
        note(
            "what was damaged is in the quarantine; `stead vault scrub --status` names the restore "
            "points that need it, and the next backups send it again: `stead backup run all`"
        )
    elif last.damaged and not mended:
        note("`stead vault scrub --now` puts what is damaged aside and saves the rest")
    if last.unreadable:
        note("what could not be read is tried again by itself; look at the disk or the store")
    return FAILED if bad else DONE
