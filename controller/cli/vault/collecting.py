"""`stead vault collect`: give back the room of what no restore point needs."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import tenant_named
from controller.cli.operator.streams import answers_of
from controller.cli.options.usual import tenant_option
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.meter import meter
from protocol.errors import InvalidError
from protocol.v1.operator_pb2 import ListTenantsRequest
from protocol.v1.retention_pb2 import CollectRequest, CollectResponse

_RATE = re.compile(r"(\d{1,9})([KMG]?)\Z")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@click.command(epilog="Example: stead vault collect --dry-run")
@tenant_option
@click.option("--dry-run", is_flag=True, help="Say what could go and change nothing.")
@click.option("--rate", metavar="BYTES", default="", help="At most so much a second: 20M.")
@click.option(
    "--accept-losses",
    is_flag=True,
    help="Go on although chunks that restore points need are lost.",
)
@output_option
@click.pass_obj
def collect(
    app: App, tenant: str, *, dry_run: bool, rate: str, accept_losses: bool, output: str
) -> None:
    """Collect what no restore point needs, beside backups that are under way.

    What nobody needs is condemned first and given back a day later, so a second run
    frees what the first one found. The controller does the same by itself every day.
    """
    connection = app.connection
    listed = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    names = {one.tenant_id: one.name for one in listed}
    request = CollectRequest(
        tenant_id=tenant_named(connection, tenant).tenant_id if tenant else "",
        dry_run=dry_run,
        bytes_per_s=parse_rate(rate),
        accept_losses=accept_losses,
    )
    rows = []
    with meter("collect", unit="") as told:
        for said in answers_of(connection.retention.Collect(request)):
            told(said.done, said.phase)
            if said.finished:
                rows.append(collected_row(said, names))
    emit(
        rows,
        output,
        columns=("tenant", "chunks", "condemned", "dead", "freed"),
        cells={
            "condemned": lambda row: render_bytes(row["condemned_bytes"]),
            "dead": lambda row: render_bytes(row["dead_bytes"]),
            "freed": lambda row: render_bytes(row["freed_bytes"]),
        },
        empty="there is no tenant yet",
    )
    if dry_run and output == "table":
        note("nothing was changed: condemned is what nobody needs, dead what could go now")


def parse_rate(text: str) -> int:
    """Bytes a second; 0 where nothing was said.

    >>> parse_rate("20M"), parse_rate("")
    (20971520, 0)
    """
    if not text:
        return 0
    found = _RATE.match(text.upper())
    if found is None or not int(found[1]):
        raise InvalidError(f"{text[:40]!r} is not a rate such as 20M or 500K")
    return int(found[1]) * _UNITS[found[2]]


def collected_row(said: CollectResponse, names: dict[str, str]) -> dict[str, Any]:
    """The figures of a tenant's collection as a record."""
    return {
        "tenant": names.get(said.tenant_id, said.tenant_id),
        "tenant_id": said.tenant_id,
        "purged_points": said.purged_points,
        "chunks": said.chunks,
        "condemned_chunks": said.condemned_chunks,
        "condemned_bytes": said.condemned_bytes,
        "dead_bytes": said.dead_bytes,
        "freed_bytes": said.freed_bytes,
        "dropped_packs": said.dropped_packs,
        "rewritten_packs": said.rewritten_packs,
        "missing_chunks": said.missing_chunks,
    }
