"""`stead vault stats`: how much is backed up, what it takes, and how that grew."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import known_machines, tenant_named
from controller.cli.options.usual import tenant_option
from controller.cli.output.bars import render_bar
from controller.cli.output.emit import Row, emit, from_wire_ms, note, output_option, render_bytes
from protocol.v1.operator_pb2 import ListTenantsRequest
from protocol.v1.proof_pb2 import GetVaultStatsRequest, VaultStats

STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1), "month": timedelta(days=30)}
BAR = 24
SHOWN = 26
SIZES = ("logical", "newest", "unique", "stored", "sent")


@click.command(epilog="Example: stead vault stats --machines")
@click.option("--machines", "by_machine", is_flag=True, help="By machine.")
@click.option("--growth", type=click.Choice(list(STEPS)), help="What came in, step by step.")
@tenant_option
@output_option
@click.pass_obj
def stats(app: App, *, by_machine: bool, growth: str | None, tenant: str, output: str) -> None:
    """Say how much is backed up and what it takes.

    Logical: what all restore points restore to, each counted whole, with named streams. Unique:
    after dedup.
    Stored: after compression as well, on the disk.
    """
    connection = app.connection
    wanted = tenant_named(connection, tenant).tenant_id if tenant else ""
    step = STEPS[growth or "week"]
    request = GetVaultStatsRequest(tenant_id=wanted, step_s=int(step.total_seconds()))
    vaults = connection.proofs.GetVaultStats(request).vaults
    listed = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    names = {one.tenant_id: one.name for one in listed}
    machines, _ = known_machines(connection, "", brief=True)
    machine_names = {one.machine_id: one.name for one in machines}
    rows = [stats_row(vault, names, machine_names) for vault in vaults]
    if output != "table":
        emit(rows, output, columns=())
        return
    sizes = {name: _size(f"{name}_bytes") for name in SIZES}
    if by_machine:
        emit(
            [one for row in rows for one in row["machines"]],
            output,
            columns=("machine", "tenant", "points", "newest", "logical", "sent"),
            cells=sizes,
            empty="no machine has a restore point yet",
        )
    elif growth:
        for row in rows:
            _say_growth(row)
    else:
        emit(
            rows,
            output,
            columns=("tenant", "points", "newest", "logical", "unique", "stored", "saved"),
            cells={**sizes, "saved": render_saved},
            empty="there is no tenant yet",
        )
    if any(not row["unique_is_known"] for row in rows):
        note("unique is not known: the restore points are of a release that did not say it")


def stats_row(
    vault: VaultStats, names: dict[str, str], machine_names: dict[str, str]
) -> dict[str, Any]:
    """The figures of a vault as a record."""
    name = names.get(vault.tenant_id, vault.tenant_id)
    return {
        "tenant": name,
        "points": vault.points,
        "logical_bytes": vault.logical_bytes,
        "newest_bytes": vault.newest_bytes,
        "unique_bytes": vault.unique_bytes if vault.unique_is_known else None,
        "unique_is_known": vault.unique_is_known,
        "stored_bytes": vault.pack_bytes,
        "chunk_bytes": vault.chunk_bytes,
        "chunks": vault.chunks,
        "packs": vault.packs,
        "stream_bytes": vault.stream_bytes,
        "machines": [
            {
                "machine": machine_names.get(one.machine_id, one.machine_id),
                "tenant": name,
                "points": one.points,
                "newest_bytes": one.newest_bytes,
                "logical_bytes": one.logical_bytes,
                "sent_bytes": one.sent_bytes,
                "stream_bytes": one.stream_bytes,
                "first_at": from_wire_ms(one.first_at_ms),
                "last_at": from_wire_ms(one.last_at_ms),
            }
            for one in vault.machines
        ],
        "growth": [
            {
                "from_at": from_wire_ms(one.from_ms),
                "points": one.points,
                "logical_bytes": one.logical_bytes,
                "sent_bytes": one.sent_bytes,
                "stored_bytes": one.stored_bytes,
            }
            for one in vault.growth
        ],
    }


def render_saved(row: Row) -> str:
    """How many times what is stored could be restored.

    >>> render_saved({"logical_bytes": 300, "stored_bytes": 100})
    '3.0 ×'
    """
    if not row["stored_bytes"]:
        return "–"
    return f"{row['logical_bytes'] / row['stored_bytes']:.1f} ×"


def _say_growth(row: Row) -> None:
    total = 0
    rows = []
    for piece in row["growth"]:
        total += piece["stored_bytes"]
        rows.append({**piece, "total_bytes": total})
    shown = rows[-SHOWN:]
    greatest = max((piece["stored_bytes"] for piece in shown), default=0)
    emit(
        shown,
        "table",
        columns=("from", "points", "stored", "total", "new"),
        cells={
            "from": lambda one: f"{one['from_at']:%Y-%m-%d}",
            "stored": _size("stored_bytes"),
            "total": _size("total_bytes"),
            "new": lambda one: render_bar(one["stored_bytes"], greatest, BAR),
        },
        title=str(row["tenant"]),
        empty=f"{row['tenant']} has nothing stored yet",
    )


def _size(name: str) -> Any:
    return lambda row: "–" if row[name] is None else render_bytes(row[name])
