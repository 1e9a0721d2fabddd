"""`stead vault scrub`: look at everything now, or say what is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import known_machines, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.options.usual import tenant_option
from controller.cli.output.emit import (
    Row,
    emit,
    from_wire_ms,
    note,
    output_option,
    printable,
    render_age,
    render_bytes,
)
from controller.cli.output.exits import DONE, FAILED
from controller.cli.vault.collecting import parse_rate
from controller.cli.vault.look import look, say_look
from protocol.errors import InvalidError
from protocol.v1.operator_pb2 import ListTenantsRequest
from protocol.v1.proof_pb2 import Damage, GetScrubStatusRequest, ScrubStatus

SHOWN = 10
NAMED = 5


@click.command(epilog="Example: stead vault scrub --now --rate 50M")
@click.option("--now", is_flag=True, help="Look at everything now, as fast as it goes.")
@click.option("--status", is_flag=True, help="Say what is known; look at nothing (default).")
@click.option("--dry-run", is_flag=True, help="With --now: look, and change nothing.")
@click.option(
    "--rate", metavar="BYTES", default="", help="With --now: read at most so much a second: 50M."
)
@tenant_option
@output_option
@click.pass_obj
def scrub(
    app: App, *, now: bool, status: bool, dry_run: bool, rate: str, tenant: str, output: str
) -> int:
    """See to it that everything stored can still be read. The controller runs.

    It scrubs by itself, all the time: each pack is read and hashed within 30 days. What
    is damaged goes to the quarantine, and the next backups send what was lost.
    """
    if now and status:
        raise InvalidError("either --now or --status, not both")
    if dry_run and not now:
        raise InvalidError("--dry-run goes with --now; without it nothing is changed anyway")
    if rate and not now:
        raise InvalidError(
            "--rate goes with --now; by itself the controller reads everything in 14 days, and "
            "at most 32M a second where it catches up"
        )
    bytes_per_s = parse_rate(rate)
    connection = app.connection
    wanted = tenant_named(connection, tenant).tenant_id if tenant else ""
    if now:
        mend = not dry_run
        found = look(connection, wanted, mend=mend, bytes_per_s=bytes_per_s)
        return say_look(found, output, mended=mend)
    request = GetScrubStatusRequest(tenant_id=wanted)
    vaults = connection.proofs.GetScrubStatus(request).vaults
    listed = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    names = {one.tenant_id: one.name for one in listed}
    rows = [status_row(vault, names) for vault in vaults]
    at = clock.now()
    emit(
        rows,
        output,
        columns=("tenant", "state", "packs", "stored", "whole", "round", "missing", "unread"),
        cells={
            "stored": lambda row: render_bytes(row["stored_bytes"]),
            "whole": lambda row: render_age(row["last_round_ended_at"], at),
            "round": render_round,
            "missing": lambda row: str(row["missing_chunks"] or ""),
            "unread": lambda row: str(len(row["unreadable"]) or ""),
        },
        empty="there is no tenant yet",
    )
    if output == "table":
        for vault in vaults:
            for line in _lines(connection, vault):
                note(line)
    return FAILED if any(row["state"] != "ok" for row in rows) else DONE


def status_row(vault: ScrubStatus, names: dict[str, str]) -> dict[str, Any]:
    """What is known of a vault, as a record."""
    ended = [one for one in vault.rounds if one.ended_at_ms]
    current = next((one for one in vault.rounds if not one.ended_at_ms), None)
    missing = sum(one.missing_chunks for one in vault.damages)
    return {
        "tenant": names.get(vault.tenant_id, vault.tenant_id),
        "state": "damaged" if missing else "unreadable" if vault.unreadable else "ok",
        "packs": vault.packs,
        "stored_bytes": vault.total_bytes,
        "last_round_ended_at": from_wire_ms(max((o.ended_at_ms for o in ended), default=0)),
        "round_began_at": from_wire_ms(current.began_at_ms) if current else None,
        "round_bytes": current.bytes if current else None,
        "missing_chunks": missing,
        "damages": [_damage_row(one) for one in vault.damages],
        "unreadable": [
            {
                "object": one.object_key,
                "first_at": from_wire_ms(one.first_at_ms),
                "last_at": from_wire_ms(one.last_at_ms),
                "tries": one.tries,
                "reason": one.reason,
            }
            for one in vault.unreadable
        ],
        "rounds": [
            {
                "number": one.number,
                "kind": one.kind,
                "began_at": from_wire_ms(one.began_at_ms),
                "ended_at": from_wire_ms(one.ended_at_ms),
                "packs": one.packs,
                "bytes": one.bytes,
                "points": one.points,
                "damaged": one.damaged,
                "unreadable": one.unreadable,
            }
            for one in vault.rounds
        ],
    }


def render_round(row: Row) -> str:
    """How far the round is that is under way.

    >>> render_round({"round_bytes": 50, "stored_bytes": 200})
    '25 %'
    """
    if row["round_bytes"] is None:
        return "–"
    total = max(row["stored_bytes"], 1)
    return f"{min(100, 100 * row['round_bytes'] / total):.0f} %"


def _damage_row(one: Damage) -> dict[str, Any]:
    return {
        "damage": one.number,
        "object": one.object_key,
        "found_at": from_wire_ms(one.found_at_ms),
        "reason": one.reason,
        "kept_chunks": one.kept_chunks,
        "lost_chunks": one.lost_chunks,
        "missing_chunks": one.missing_chunks,
        "points": {hit.machine_id: list(hit.point_ids) for hit in one.hit}
        if one.hit_is_known
        else None,
    }


def _lines(connection: Connection, vault: ScrubStatus) -> Iterator[str]:
    """What a person has to know of what is open, and what to do about it."""
    open_ones = [one for one in vault.damages if one.missing_chunks]
    if open_ones:
        machines, _ = known_machines(connection, "", brief=True)
        names = {machine.machine_id: machine.name for machine in machines}
        for one in open_ones[:SHOWN]:
            hit = ", ".join(
                f"{names.get(m.machine_id, m.machine_id)}: {_some(list(m.point_ids))}"
                for m in one.hit
            )
            yield printable(
                f"damage {one.number}, {one.object_key.rpartition('/')[2][:16]}: {one.reason}; "
                f"{one.missing_chunks} of {one.lost_chunks} lost chunks are still missing; "
                + (f"it hits {hit}" if hit else "no restore point needs it")
            )
        yield "machines that still have the files send them again: `stead backup run all`"
    for lost in vault.unreadable[:SHOWN]:
        yield printable(f"{lost.object_key}: tried {lost.tries} times: {lost.reason}")


def _some(points: list[str]) -> str:
    more = f" and {len(points) - NAMED} more" if len(points) > NAMED else ""
    return ", ".join(points[-NAMED:]) + more
