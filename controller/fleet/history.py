"""A machine's inventories as operators read them: now, then, and when they changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import zstandard
from sqlalchemy import Connection, select

from controller.db.schema import inventories, sections
from controller.fleet.scope import require_machine
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import OperatorIdentity
from protocol.inventory import MAX_BODY_BYTES

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Section:
    """A section's name, the hash of its body, and the body, which is JSON."""

    name: str
    hash: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Inventory:
    """An inventory, or those of its sections that were asked for, by name."""

    collected_at: datetime
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One inventory in a history; `changed` names what differs from the one before it."""

    collected_at: datetime
    root: bytes
    changed: tuple[str, ...]


def inventory_at(
    connection: Connection,
    operator: OperatorIdentity,
    machine_id: str,
    *,
    at: datetime | None,
    names: Sequence[str] = (),
) -> Inventory:
    """The inventory that held at a time, or the newest one, whole or in part.

    Raises NOT_FOUND for a machine beyond the scope, for a time before the first
    inventory and for a section that it has not got.
    """
    machine = require_machine(connection, operator, machine_id)
    query = select(inventories).where(inventories.c.machine_id == machine.id)
    if at is not None:
        query = query.where(inventories.c.at <= at)
    row = connection.execute(query.order_by(inventories.c.at.desc()).limit(1)).one_or_none()
    if row is None:
        when = "" if at is None else f" of {at:%Y-%m-%d %H:%M}Z or before"
        raise NotFoundError(f"there is no inventory of {machine.name}{when}")
    manifest = _manifest(row.manifest)
    for name in names:
        if name not in manifest:
            raise NotFoundError(
                f"the inventory of {machine.name} has no section {name[:80]!r}; it has "
                + ", ".join(sorted(manifest))
            )
    wanted = sorted(set(names)) if names else sorted(manifest)
    return Inventory(
        row.at,
        tuple(
            Section(name, manifest[name], _body(connection, row.tenant_id, manifest[name]))
            for name in wanted
        ),
    )


def listed(
    connection: Connection,
    operator: OperatorIdentity,
    machine_id: str,
    limit: int = 0,
    *,
    oldest: bool = False,
) -> list[Entry]:
    """When a machine's inventory changed and in which sections, newest first.

    The first inventory of all has all of its sections changed. `oldest` lists the oldest ones
    instead of the newest.
    """
    machine = require_machine(connection, operator, machine_id)
    wanted = min(limit or DEFAULT_LIMIT, LARGEST_LIMIT)
    rows = connection.execute(
        select(inventories)
        .where(inventories.c.machine_id == machine.id)
        .order_by(inventories.c.at if oldest else inventories.c.at.desc())
        .limit(wanted if oldest else wanted + 1)
    ).all()
    if oldest:
        rows = rows[::-1]
    # Before the first inventory of all there was an empty one.
    manifests = [*(_manifest(row.manifest) for row in rows), {}]
    return [
        Entry(row.at, row.root, changed_names(manifests[place + 1], manifests[place]))
        for place, row in enumerate(rows[:wanted])
    ]


def changed_names(older: Mapping[str, bytes], newer: Mapping[str, bytes]) -> tuple[str, ...]:
    """Sections that are new, have another body or are gone, sorted.

    >>> changed_names({"cpu": b"1", "ports": b"1"}, {"cpu": b"2", "users": b"1"})
    ('cpu', 'ports', 'users')
    """
    names = older.keys() | newer.keys()
    return tuple(sorted(name for name in names if older.get(name) != newer.get(name)))


def _manifest(text: str) -> dict[str, bytes]:
    return {
        name: bytes.fromhex(digest)
        for name, digest in msgspec.json.decode(text, type=dict[str, str]).items()
    }


def _body(connection: Connection, tenant: str, digest: bytes) -> bytes:
    packed = connection.scalar(
        select(sections.c.body).where(sections.c.tenant_id == tenant, sections.c.hash == digest)
    )
    if packed is None:
        raise SteadError(
            f"the database has lost a section ({digest.hex()[:16]}); restore it from its backup",
            code=Code.DATABASE_DAMAGED,
        )
    return unpack(packed)


def unpack(packed: bytes, by: zstandard.ZstdDecompressor | None = None) -> bytes:
    """A kept body as it came; bounded, whatever the frame says of itself.

    Who unpacks many gives one decompressor, which takes longer to make than to use.
    """
    by = by or zstandard.ZstdDecompressor()
    return by.decompress(packed, max_output_size=MAX_BODY_BYTES)
