"""Inventories of machines: taken in, and read as they are or as they were.

Bodies are kept once per tenant under their hash, compressed; a machine's history is a
list of manifests, with a new one only where the root changed. The hash of a body is
its machine's claim until it is checked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import zstandard
from sqlalchemy import Connection, select, update

from controller import clock
from controller.audit.log import append
from controller.db.database import Database
from controller.db.schema import inventories, machines, sections
from controller.db.upsert import upsert
from controller.fleet.scope import machine_row
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.identity import MachineIdentity
from protocol.inventory import (
    HASH_BYTES,
    MAX_BODY_BYTES,
    MAX_SECTIONS,
    body_hash,
    check_section_name,
    root_of,
)

FUTURE = timedelta(minutes=5)
_LEVEL = 6
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Packed:
    """A section's body as it is kept: checked, and compressed with zstd."""

    hash: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Reported:
    """Hashes whose bodies are still wanted, none when it was recorded; and the root."""

    missing: tuple[bytes, ...]
    root: bytes


def read_manifest(entries: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """A manifest of names and hashes; INVALID for what cannot be one."""
    manifest: dict[str, bytes] = {}
    for name, digest in entries:
        check_section_name(name)
        if len(digest) != HASH_BYTES:
            raise InvalidError(f"the hash of section {name} has {HASH_BYTES} bytes")
        if name in manifest:
            raise InvalidError(f"section {name} is named twice")
        manifest[name] = digest
    if not manifest:
        raise InvalidError("an inventory has at least one section")
    if len(manifest) > MAX_SECTIONS:
        raise InvalidError(f"an inventory has at most {MAX_SECTIONS} sections")
    return manifest


def pack(manifest: Mapping[str, bytes], bodies: Iterable[bytes]) -> list[Packed]:
    """Check bodies against the manifest and compress them; takes time, so call it in a thread.

    Raises INVALID for a body that is too long, that no section has, or that is no JSON
    object.
    """
    names = {digest: name for name, digest in manifest.items()}
    packed = []
    for body in bodies:
        if len(body) > MAX_BODY_BYTES:
            raise InvalidError(f"a section's body has at most {MAX_BODY_BYTES} bytes")
        digest = body_hash(body)
        name = names.get(digest)
        if name is None:
            raise InvalidError("a body fits the hash of no section of this inventory")
        _check_json(name, body)
        packed.append(Packed(digest, zstandard.ZstdCompressor(_LEVEL).compress(body)))
    return packed


async def report(
    db: Database,
    machine: MachineIdentity,
    manifest: Mapping[str, bytes],
    bodies: Sequence[bytes],
    collected_at: datetime,
) -> Reported:
    """Take in what a machine says of itself; what is missing is asked for.

    An inventory that is known already costs one read. Raises INVALID, and
    UNKNOWN_MACHINE when the database has no such machine.
    """
    root = root_of(manifest)
    if not bodies:
        missing = await db.read(lambda c: _look(c, machine, manifest, root))
        if missing is None:
            return Reported((), root)
        if missing:
            return Reported(missing, root)
    packed = await asyncio.to_thread(pack, manifest, bodies)
    return await db.write(
        lambda c: _take(c, machine, manifest, packed, root, collected_at, clock.now())
    )


def _look(
    connection: Connection, machine: MachineIdentity, manifest: Mapping[str, bytes], root: bytes
) -> tuple[bytes, ...] | None:
    """What is missing; None when this inventory is the machine's present one."""
    if _present_root(connection, machine) == root:
        return None
    return _missing(connection, machine, manifest)


def _take(
    connection: Connection,
    machine: MachineIdentity,
    manifest: Mapping[str, bytes],
    packed: Sequence[Packed],
    root: bytes,
    collected_at: datetime,
    now: datetime,
) -> Reported:
    before = _present_root(connection, machine)
    for section in packed:
        connection.execute(
            upsert(connection, sections)
            .values(tenant_id=machine.tenant, hash=section.hash, body=section.body)
            .on_conflict_do_nothing()
        )
    missing = _missing(connection, machine, manifest)
    if missing or before == root:
        return Reported(missing, root)
    connection.execute(
        inventories.insert(),
        {
            "machine_id": machine.machine,
            "at": _moment(connection, machine, collected_at, now),
            "tenant_id": machine.tenant,
            "root": root,
            "manifest": msgspec.json.encode(
                {name: manifest[name].hex() for name in sorted(manifest)}
            ).decode(),
        },
    )
    connection.execute(
        update(machines)
        .where(machines.c.id == machine.machine)
        .values(inventory_root=root, last_seen_at=now)
    )
    body = {"machine": machine.machine, "root": root.hex()}
    actor = f"machine/{machine.machine}"
    append(connection, machine.tenant, actor, "inventory_changed", body, now)
    return Reported((), root)


def _present_root(connection: Connection, machine: MachineIdentity) -> bytes | None:
    row = machine_row(connection, machine.machine)
    if row is None or row.tenant_id != machine.tenant:
        raise SteadError(
            "the controller does not know this machine; enroll it again with a new token",
            code=Code.UNKNOWN_MACHINE,
        )
    root: bytes | None = row.inventory_root
    return root


def _missing(
    connection: Connection, machine: MachineIdentity, manifest: Mapping[str, bytes]
) -> tuple[bytes, ...]:
    wanted = sorted(set(manifest.values()))
    held = set(
        connection.scalars(
            select(sections.c.hash).where(
                sections.c.tenant_id == machine.tenant, sections.c.hash.in_(wanted)
            )
        )
    )
    return tuple(digest for digest in wanted if digest not in held)


def _moment(
    connection: Connection, machine: MachineIdentity, collected_at: datetime, now: datetime
) -> datetime:
    """When the inventory is said to be of: the machine's word, unless its clock is wrong.

    A history goes forward, so what came later is never put before what came earlier.
    """
    newest = connection.scalar(
        select(inventories.c.at)
        .where(inventories.c.machine_id == machine.machine)
        .order_by(inventories.c.at.desc())
        .limit(1)
    )
    at = collected_at if collected_at <= now + FUTURE else now
    if newest is None or at > newest:
        return at
    floor: datetime = newest + _TICK
    return max(now, floor)


def _check_json(name: str, body: bytes) -> None:
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise InvalidError(f"the body of section {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidError(f"the body of section {name} is not a JSON object")
