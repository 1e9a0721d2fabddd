"""Read an audit log and what was signed about it from the controller, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from controller.audit.chain import Entry
from controller.audit.log import INSTALLATION
from controller.audit.trail import Mark
from controller.audit.wanted import Wanted
from controller.cli.operator.choice import machine_meant, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.output.emit import note
from protocol.checkpoint import Checkpoint, from_us, open_checkpoint, to_us
from protocol.errors import UNREADABLE, DeniedError, SteadError
from protocol.v1.operator_pb2 import (
    AuditEntry,
    ListAuditRequest,
    ListCheckpointsRequest,
    ListTenantsRequest,
)

PAGE = 1000
LONGEST = 120
"""Of a value in a table; JSON has all of it."""
INSTALLATION_NAME = "installation"


def log_named(connection: Connection, name: str) -> tuple[str, str]:
    """A log's id and name, by a tenant's name or `installation`."""
    if name == INSTALLATION_NAME and connection.operator.tenants is not None:
        raise DeniedError(
            "the installation's own log is for operators of all tenants; name a tenant with "
            "--tenant: `stead tenant ls` lists yours"
        )
    if name == INSTALLATION_NAME:
        return INSTALLATION, INSTALLATION_NAME
    tenant = tenant_named(connection, name)
    return tenant.tenant_id, tenant.name


def all_logs(connection: Connection) -> Sequence[tuple[str, str]]:
    """The ids and names of all logs that the operator may see."""
    tenants = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    logs = [(tenant.tenant_id, tenant.name) for tenant in tenants]
    if connection.operator.tenants is None:
        return [(INSTALLATION, INSTALLATION_NAME), *logs]
    note("the installation's own log is for operators of all tenants, and was left out")
    return logs


def wanted_of(
    connection: Connection,
    log: str,
    *,
    since: datetime | None,
    until: datetime | None,
    event: str,
    actor: str,
    machine: str,
) -> Wanted:
    """What the options of a command choose of a log; `machine` is a name or an id."""
    by_id = machine_meant(connection, machine, log).machine_id if machine else ""
    return Wanted(since, until, event, actor, by_id)


def request_for(log: str, wanted: Wanted) -> ListAuditRequest:
    """A request for what is wanted of a log."""
    return ListAuditRequest(
        tenant_id=log,
        since_us=0 if wanted.since is None else to_us(wanted.since),
        until_us=0 if wanted.until is None else to_us(wanted.until),
        event=wanted.event,
        actor=wanted.actor,
        machine_id=wanted.machine,
    )


def read_entries(
    connection: Connection, log: str, *, until: int | None = None, wanted: Wanted | None = None
) -> Iterator[Entry]:
    """The entries that are wanted, in order, up to number `until`."""
    request = request_for(log, wanted or Wanted())
    request.limit = PAGE
    while True:
        page = connection.audit.ListAudit(request).entries
        for entry in page:
            if until is not None and entry.sequence > until:
                return
            yield entry_of(entry, log)
        if not page or page[-1].sequence <= request.after:
            return
        request.after = page[-1].sequence


def newest_entries(connection: Connection, log: str, wanted: Wanted, limit: int) -> list[Entry]:
    """The last `limit` entries that are wanted, in order."""
    request = request_for(log, wanted)
    request.newest = True
    pages: list[list[Entry]] = []
    while limit > 0:
        request.limit = min(limit, PAGE)
        answer = connection.audit.ListAudit(request)
        page = [entry_of(entry, log) for entry in answer.entries]
        pages.append(page)
        limit -= len(page)
        if not page or (len(page) < request.limit and not answer.cut):
            break
        if request.before and page[-1].seq >= request.before:
            raise SteadError("the controller lists entries out of order")
        request.before = page[0].seq
    return [entry for page in reversed(pages) for entry in page]


def render_body(body: str) -> str:
    """What an entry says, for people: of a list the length, of what is long the beginning.

    >>> render_body('{"order":"or_1","machines":["mc_1","mc_2"],"reason":"","linked":false}')
    'order: or_1, machines: 2, linked: no'
    """
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE:
        found = None
    if not isinstance(found, dict):
        return _cut(body)
    said = {name: value for name, value in found.items() if value not in ("", None, [], {})}
    return ", ".join(f"{name.replace('_', ' ')}: {_short(said[name])}" for name in said)


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, dict)):
        return str(len(value))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def last_number(connection: Connection, log: str) -> int:
    """The number of a log's last entry, as the controller says it; 0 for none."""
    request = ListAuditRequest(tenant_id=log, limit=1, newest=True)
    return connection.audit.ListAudit(request).head_sequence


def fresh_checkpoint(connection: Connection, log: str) -> tuple[bytes, Checkpoint] | None:
    """The checkpoint of the log as it is now; None for a log without any."""
    request = ListCheckpointsRequest(tenant_id=log, fresh=True)
    for signed in connection.audit.ListCheckpoints(request).checkpoints:
        return signed, open_checkpoint(signed, connection.root)
    return None


def read_checkpoints(
    connection: Connection, log: str, *, until: int
) -> Iterator[tuple[bytes, Checkpoint]]:
    """The signed checkpoints of at most `until` entries, smallest first."""
    request = ListCheckpointsRequest(tenant_id=log, limit=PAGE)
    while True:
        page = connection.audit.ListCheckpoints(request).checkpoints
        for signed in page:
            opened = open_checkpoint(signed, connection.root)
            if opened.size <= request.after:
                raise SteadError("the controller lists checkpoints out of order")
            if opened.size > until:
                return
            yield signed, opened
            request.after = opened.size
        if not page:
            return


def steps_of(
    entries: Iterator[Entry], checkpoints: Iterator[tuple[bytes, Checkpoint]]
) -> Iterator[Entry | tuple[bytes, Checkpoint]]:
    """Entries, and each checkpoint right after the last entry that it covers."""
    following = next(checkpoints, None)
    for entry in entries:
        yield entry
        while following is not None and following[1].size <= entry.seq:
            yield following
            following = next(checkpoints, None)
    while following is not None:
        yield following
        following = next(checkpoints, None)


def as_marks(steps: Iterator[Entry | tuple[bytes, Checkpoint]]) -> Iterator[Entry | Mark]:
    """The same, as `walk` takes it."""
    for step in steps:
        yield step if isinstance(step, Entry) else Mark(step[1], "a checkpoint")


def entry_of(entry: AuditEntry, tenant: str) -> Entry:
    """An entry as the chain takes it; `tenant` is whose log was asked for."""
    return Entry(
        tenant_id=tenant,
        seq=entry.sequence,
        at=from_us(entry.at_us),
        actor=entry.actor,
        event=entry.event,
        body=entry.body,
        previous=entry.previous,
        hash=entry.hash,
    )
