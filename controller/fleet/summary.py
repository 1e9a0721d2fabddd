"""A machine in a few words, read out of its newest inventory.

What a section says is the machine's own claim: anything that is not of the shape
that is expected counts as not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard
from sqlalchemy import Connection, Row, func, select, tuple_

from controller.db.schema import inventories, sections

SYSTEM = "system"
UPDATES = "updates"


@dataclass(frozen=True, slots=True)
class Summary:
    """`system` is empty and the counts are None as long as they are not known."""

    system: str = ""
    updates: int | None = None
    security_updates: int | None = None


class _Os(msgspec.Struct):
    name: str = ""


class _SystemFacts(msgspec.Struct):
    os: _Os


class _SystemBody(msgspec.Struct):
    facts: _SystemFacts | None = None


class _UpdatesFacts(msgspec.Struct):
    updates: list[msgspec.Raw]
    security_count: int


class _UpdatesBody(msgspec.Struct):
    facts: _UpdatesFacts | None = None


def summaries(connection: Connection, machines: Sequence[Row[Any]]) -> dict[str, Summary]:
    """The summary of each of these rows of `machines`, by id."""
    found = {row.id: Summary() for row in machines}
    tenant_of = {row.id: row.tenant_id for row in machines}
    newest = select(inventories.c.machine_id, func.max(inventories.c.at)).group_by(
        inventories.c.machine_id
    )
    wanted: dict[str, dict[str, str]] = {}
    for row in connection.execute(
        select(inventories.c.machine_id, inventories.c.manifest).where(
            tuple_(inventories.c.machine_id, inventories.c.at).in_(newest)
        )
    ):
        if row.machine_id in found:
            wanted[row.machine_id] = msgspec.json.decode(row.manifest, type=dict[str, str])
    bodies: dict[tuple[str, str], bytes] = {}
    for machine, manifest in wanted.items():
        found[machine] = Summary(
            system=parse_system(
                _body(connection, bodies, tenant_of[machine], manifest.get(SYSTEM))
            ),
            **_counts(_body(connection, bodies, tenant_of[machine], manifest.get(UPDATES))),
        )
    return found


def parse_system(body: bytes | None) -> str:
    """The operating system's name in a section `system`; empty when it does not say.

    >>> parse_system(b'{"facts": {"os": {"name": "Debian GNU/Linux 12"}}}')
    'Debian GNU/Linux 12'
    """
    if body is None:
        return ""
    try:
        facts = msgspec.json.decode(body, type=_SystemBody).facts
    except msgspec.DecodeError:
        return ""
    return facts.os.name[:200] if facts is not None else ""


def parse_updates(body: bytes | None) -> tuple[int, int] | None:
    """Updates and security updates in a section `updates`; None when it does not say."""
    if body is None:
        return None
    try:
        facts = msgspec.json.decode(body, type=_UpdatesBody).facts
    except msgspec.DecodeError:
        return None
    return None if facts is None else (len(facts.updates), facts.security_count)


def _counts(body: bytes | None) -> dict[str, int]:
    counted = parse_updates(body)
    return {} if counted is None else {"updates": counted[0], "security_updates": counted[1]}


def _body(
    connection: Connection, seen: dict[tuple[str, str], bytes], tenant: str, digest: str | None
) -> bytes | None:
    """A section's body, read once however many machines share it."""
    if digest is None:
        return None
    key = tenant, digest
    if key not in seen:
        packed = connection.scalar(
            select(sections.c.body).where(
                sections.c.tenant_id == tenant, sections.c.hash == bytes.fromhex(digest)
            )
        )
        if packed is None:
            return None
        seen[key] = zstandard.decompress(packed)
    return seen[key]
