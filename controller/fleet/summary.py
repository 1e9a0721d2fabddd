"""A machine in a few words, read out of its newest inventory.

What a section says is the machine's own claim: anything that is not of the shape
that is expected counts as not known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard
from sqlalchemy import Connection, and_, func, select, true

from controller.db.schema import inventories, machines, sections
from controller.fleet.history import unpack
from controller.fleet.scope import visible
from protocol.errors import UNREADABLE
from protocol.identity import OperatorIdentity

SYSTEM = "system"
UPDATES = "updates"
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """`system` is empty and the counts are None as long as they are not known."""

    system: str = ""
    updates: int | None = None
    security_updates: int | None = None


NO_SUMMARY = Summary()


class _Os(msgspec.Struct):
    name: str = ""


class _SystemFacts(msgspec.Struct):
    os: _Os


class _SystemBody(msgspec.Struct):
    facts: _SystemFacts | None = None


class _UpdatesFacts(msgspec.Struct):
    updates: list[msgspec.Raw]
    security_count: int
    held: list[msgspec.Raw] = []


class _UpdatesBody(msgspec.Struct):
    facts: _UpdatesFacts | None = None


def summaries(
    connection: Connection,
    operator: OperatorIdentity,
    tenant: str = "",
    ids: Collection[str] | None = None,
) -> dict[str, Summary]:
    """Summaries by machine id, of one tenant or of all that the operator may see.

    A machine without an inventory has none. `ids` are the machines that are meant; None is all.
    """
    rows = newest_manifests(connection, operator, tenant, ids)
    manifests = [msgspec.json.decode(row.manifest, type=dict[str, str]) for row in rows]
    wanted: dict[str, set[bytes]] = {}
    for row, manifest in zip(rows, manifests, strict=True):
        for name in (SYSTEM, UPDATES):
            if name in manifest:
                wanted.setdefault(row.tenant_id, set()).add(bytes.fromhex(manifest[name]))
    held = dict(bodies_of(connection, wanted))
    found = {}
    for row, manifest in zip(rows, manifests, strict=True):
        counts = parse_updates(held.get((row.tenant_id, manifest.get(UPDATES, ""))))
        found[row.machine_id] = Summary(
            parse_system(held.get((row.tenant_id, manifest.get(SYSTEM, "")))),
            *(counts or (None, None)),
        )
    return found


def newest_manifests(
    connection: Connection,
    operator: OperatorIdentity,
    tenant: str,
    ids: Collection[str] | None = None,
) -> Sequence[Any]:
    """(tenant_id, machine_id, manifest) of every machine that ever sent an inventory."""
    other = inventories.alias()
    newest = (
        select(func.max(other.c.at))
        .where(other.c.machine_id == machines.c.id)
        .correlate(machines)
        .scalar_subquery()
    )
    condition = machines.c.tenant_id == tenant if tenant else true()
    if ids is not None:
        condition = and_(condition, machines.c.id.in_(ids))
    return connection.execute(
        select(inventories.c.tenant_id, inventories.c.machine_id, inventories.c.manifest)
        .join(machines, machines.c.id == inventories.c.machine_id)
        .where(inventories.c.at == newest, visible(machines.c.tenant_id, operator), condition)
    ).all()


def bodies_of(
    connection: Connection, wanted: Mapping[str, set[bytes]]
) -> Iterator[tuple[tuple[str, str], bytes]]:
    """Bodies with tenant and hash in hexadecimal, each once however many machines share it."""
    by = zstandard.ZstdDecompressor()
    for tenant, digests in wanted.items():
        for batch in _batched(sorted(digests), _BATCH):
            for row in connection.execute(
                select(sections.c.hash, sections.c.body).where(
                    sections.c.tenant_id == tenant, sections.c.hash.in_(batch)
                )
            ):
                yield (tenant, row.hash.hex()), unpack(row.body, by)


def _batched(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """The items in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def parse_system(body: bytes | None) -> str:
    """The operating system's name in a section `system`; empty when it does not say.

    >>> parse_system(b'{"facts": {"os": {"name": "Debian GNU/Linux 12"}}}')
    'Debian GNU/Linux 12'
    """
    if body is None:
        return ""
    try:
        facts = msgspec.json.decode(body, type=_SystemBody).facts
    except UNREADABLE:
        return ""
    return facts.os.name[:200] if facts is not None else ""


def parse_updates(body: bytes | None) -> tuple[int, int] | None:
    """Updates and security updates in a section `updates`; None when it does not say."""
    if body is None:
        return None
    try:
        facts = msgspec.json.decode(body, type=_UpdatesBody).facts
    except UNREADABLE:
        return None
    if facts is None or not 0 <= facts.security_count <= len(facts.updates) + len(facts.held):
        return None
    return len(facts.updates), facts.security_count
