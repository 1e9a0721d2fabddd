"""The hash chain of the audit log: what an entry's hash covers, and how a chain is checked.

Pure, and needs no trust in whoever keeps the log: given the head that a signed
checkpoint names, `verify` finds every edit, cut, swap, insertion and truncation.

The hash is BLAKE3 over the msgpack array
[version, previous, tenant, seq, at in microseconds since 1970, actor, event, body].
Msgpack writes every length, so no two entries have the same encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from blake3 import blake3

from controller.db.micros import to_micros

VERSION = 1
GENESIS = bytes(32)
"""What the first entry, number 1, has as its previous hash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act in the log of a tenant, or of the installation when `tenant_id` is empty.

    `body` is JSON, byte for byte as it was hashed. `previous` and `hash` have 32 bytes.
    """

    tenant_id: str
    seq: int
    at: datetime
    actor: str
    event: str
    body: str
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain: its number, 0 when there is none, and its hash."""

    seq: int
    hash: bytes


EMPTY = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Verified:
    """The chain holds from where it was begun to `head`."""

    head: Head


@dataclass(frozen=True, slots=True)
class Broken:
    """The chain does not hold at entry `seq`; what comes before it does."""

    seq: int
    reason: str


def entry_hash(
    previous: bytes, tenant: str, seq: int, at: datetime, actor: str, event: str, body: str
) -> bytes:
    """The 32 bytes that name an entry with all that came before it."""
    fields = (VERSION, previous, tenant, seq, to_micros(at), actor, event, body)
    return blake3(msgspec.msgpack.encode(fields)).digest()


def is_altered(entry: Entry) -> bool:
    """Whether an entry's hash is not that of what stands in it."""
    made = entry_hash(
        entry.previous,
        entry.tenant_id,
        entry.seq,
        entry.at,
        entry.actor,
        entry.event,
        entry.body,
    )
    return made != entry.hash


def verify(
    entries: Iterable[Entry], tenant_id: str, *, after: Head = EMPTY, expected: Head | None = None
) -> Verified | Broken:
    """Check the entries of one tenant that follow `after`, in the order of their numbers.

    `expected` is a head that somebody trustworthy has seen: the chain must go through
    it. Without it, entries missing at the end cannot be noticed.
    """
    head = after
    met = expected is None or expected == after
    for entry in entries:
        reason = _fault(entry, head, tenant_id)
        if reason is not None:
            return Broken(head.seq + 1, reason)
        head = Head(entry.seq, entry.hash)
        if expected is not None and head.seq == expected.seq:
            if head.hash != expected.hash:
                return Broken(head.seq, "the entry is not the one that was seen before")
            met = True
    if not met and expected is not None:
        return Broken(head.seq + 1, f"the log ends before entry {expected.seq}, seen before")
    return Verified(head)


def _fault(entry: Entry, head: Head, tenant_id: str) -> str | None:
    if entry.tenant_id != tenant_id:
        return "the entry belongs to another tenant"
    if entry.seq != head.seq + 1:
        return f"entry {entry.seq} stands where {head.seq + 1} should"
    if entry.previous != head.hash:
        return "the entry does not follow the one before it"
    return "the entry was altered" if is_altered(entry) else None
