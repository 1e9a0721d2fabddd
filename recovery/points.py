"""The restore points among stored objects, opened with nothing but a recovery key.

Without a controller there is no list of machines to hold a record against. What can be
checked is: the record's own signature, that it lies where it says it belongs, that the key
opens it, and, where the root's certificate is at hand, that it signed the machine's.

Which of a machine's restore points came after which is told by the hash of the one before
that each names, and by the time at which it was begun only where that is missing: a clock
that was years ahead once would otherwise make an old one the newest for years.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heappush
from pathlib import Path

from cryptography import x509

from controller.vault.keys import PointKey
from protocol.errors import InvalidError, SteadError
from protocol.identity import MachineIdentity, believe, identity_of
from protocol.vault.epochs import LINK_BYTES, TenantKeys, decode_tenant_keys, with_links
from protocol.vault.keys import (
    TenantKey,
    VaultSecret,
    machine_scope,
    parse_paper_key,
)
from protocol.vault.point import (
    Contents,
    PointSignatureError,
    RestorePoint,
    decode_envelope,
    key_id,
    open_contents,
    point_hash,
    verify_point,
)
from recovery.objects import MAX_RECORD_BYTES, read_bounded


@dataclass(frozen=True, slots=True)
class Recoverable:
    """A restore point that the key opens, and the secret that its chunks were made with.

    `hash` is that by which the next one names it.
    """

    point: RestorePoint
    contents: Contents
    secret: VaultSecret
    hash: bytes = b""

    @property
    def id(self) -> str:
        """Of the restore point."""
        return self.point.id

    @property
    def received_at(self) -> datetime | None:
        """When it was begun: when it was received stood in the database."""
        return self.point.started_at


@dataclass(slots=True)
class Found:
    """What the keys open, newest first; what is left out; and of tenants whose restore points
    are all sealed to other keys, how many there are.
    """

    points: list[Recoverable] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    of_others: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that is not used, and why. `sealed_to_other`: nothing is wrong but the key."""

    key: PointKey
    reason: str
    sealed_to_other: bool = False


class _OtherKeyError(InvalidError):
    """None of the keys is one that a restore point was sealed to."""


def load_keys(file: Path) -> TenantKeys:
    """Recovery keys from a file: as `stead` keeps them, or one as it is written on paper."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidError(f"{file} cannot be read: {(error.strerror or '').lower()}") from error
    if data.startswith(b"STK"):
        return decode_tenant_keys(data)
    try:
        return TenantKeys((parse_paper_key(data.decode("ascii")),))
    except UnicodeDecodeError:
        raise InvalidError(
            f"{file} is no recovery key: neither a TENANT.key nor the text of a paper key"
        ) from None


def every_key(files: Sequence[Path], links: Sequence[Path]) -> list[TenantKey]:
    """The keys of files, and all older ones that the links beside the packs lead to."""
    linked = []
    for link in links:
        # What cannot be read leads nowhere, as a damaged one.
        with suppress(OSError, InvalidError):
            linked.append(read_bounded(link, LINK_BYTES))
    found = [with_links(load_keys(file), linked) for file in files]
    return list(dict.fromkeys(key for keys in found for key in keys.keys))


def recoverable(
    listed: Iterable[tuple[PointKey, Path]],
    keys: Sequence[TenantKey],
    root: x509.Certificate | None,
) -> Found:
    """Open every record that the keys open."""
    opened: dict[PointKey, Recoverable] = {}
    left_out: dict[PointKey, LeftOut] = {}
    for key, file in listed:
        if key in opened:
            continue
        try:
            opened[key] = _opened(key, read_bounded(file, MAX_RECORD_BYTES), keys, root)
        except (SteadError, OSError, ValueError) as error:
            other = isinstance(error, _OtherKeyError)
            left_out.setdefault(key, LeftOut(key, str(error).partition("; run `stead")[0], other))
    found = Found(newest_first(opened.values()))
    of_keys = {key.tenant for key in opened}
    for one in left_out.values():
        if one.sealed_to_other and one.key.tenant not in of_keys:
            found.of_others[one.key.tenant] = found.of_others.get(one.key.tenant, 0) + 1
        elif one.key not in opened:
            found.left_out.append(one)
    return found


def newest_first(points: Iterable[Recoverable]) -> list[Recoverable]:
    """By the time at which they were begun, but each behind the one that it names as before it."""
    by_hash = {one.hash: one for one in points}
    after: defaultdict[bytes, list[Recoverable]] = defaultdict(list)
    ready: list[tuple[datetime, str, bytes]] = []
    for one in by_hash.values():
        if one.point.previous in by_hash:
            after[one.point.previous].append(one)
        else:
            ready.append((one.point.started_at, one.id, one.hash))
    heapify(ready)
    oldest_first: list[Recoverable] = []
    while ready:
        one = by_hash[heappop(ready)[2]]
        oldest_first.append(one)
        for later in after[one.hash]:
            heappush(ready, (later.point.started_at, later.id, later.hash))
    return oldest_first[::-1]


def _opened(
    key: PointKey, record: bytes, keys: Sequence[TenantKey], root: x509.Certificate | None
) -> Recoverable:
    envelope = decode_envelope(record)
    point = verify_point(envelope)
    leaf, *above = [x509.load_der_x509_certificate(der) for der in envelope.chain]
    signer = identity_of(leaf)
    if root is not None:
        signer = believe(leaf, root=root, issuing=above, now=point.started_at)
    if (point.tenant, point.machine, point.id) != key or not isinstance(signer, MachineIdentity):
        raise PointSignatureError("the record is another machine's or restore point's")
    if (signer.tenant, signer.machine) != (point.tenant, point.machine):
        raise PointSignatureError("another machine signed it than the one it names")
    named = {sealed.key for sealed in point.sealed}
    for one in keys:
        if key_id(one.recovery_private.public_key()) not in named:
            continue
        contents = open_contents(one.recovery_private, point)
        secret = (
            machine_scope(one.secret, point.machine) if point.scope == "machine" else one.secret
        )
        return Recoverable(point, contents, secret, point_hash(envelope.body))
    raise _OtherKeyError("it is sealed to another key than those that are here")
