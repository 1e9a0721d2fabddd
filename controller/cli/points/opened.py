"""Restore points as an operator reads them: verified, opened with the recovery key.

The controller passes on bytes. Whether they are a machine's is seen from its signature
and certificate, and whether they are this tenant's from being opened by its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import grpc
from cryptography import x509

from controller import clock
from controller.cli.operator.connection import Connection
from controller.cli.operator.streams import answers_of
from controller.cli.operator.tenant_keys import key_of_point
from controller.cli.output.emit import from_wire_ms
from controller.cli.points.chosen import LATEST, choose
from controller.cli.points.chunks import Chunks, pieces_of
from controller.cli.points.seen import RolledBackError, Seen
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import MachineIdentity, believe
from protocol.ids import MachineId, PointId, TenantId
from protocol.v1.operator_pb2 import Machine
from protocol.v1.vault_pb2 import GetRequest, ListPointsRequest, PointRecord
from protocol.vault.cached import CachedReader
from protocol.vault.chunk import ChunkId, Opener
from protocol.vault.entry import Entry, Kind
from protocol.vault.keys import VaultSecret, machine_scope
from protocol.vault.node import Root
from protocol.vault.path import is_path
from protocol.vault.point import (
    UNREADABLE,
    Contents,
    PointSignatureError,
    RestorePoint,
    Skipped,
    decode_envelope,
    open_contents,
    verify_point,
)
from protocol.vault.reader import ChunkMissingError
from protocol.vault.totals import Sum, sum_below

Readers = dict[bytes, tuple[CachedReader, Chunks]]
"""For each secret that chunks were made with what reads them, with its memory."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A restore point in a listing; `point` is None when `problem` says why it is not to be
    believed. `paths` is None when only the recovery key, which is elsewhere, can tell.
    """

    id: str
    received_at: datetime | None
    point: RestorePoint | None
    paths: tuple[bytes, ...] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A restore point that can be read. `skipped` may be cut short."""

    point: RestorePoint
    root: Root
    reader: CachedReader
    chunks: Chunks
    secret: VaultSecret
    tenant: TenantId
    connection: Connection
    skipped: tuple[Skipped, ...] = ()

    def sum_below(self, path: bytes) -> Sum:
        """What lies below a directory, from the totals that nodes carry."""
        return sum_below(self.reader, self.root, path)


def list_points(connection: Connection, machine: Machine, *, limit: int = 0) -> list[Listed]:
    """A machine's restore points, newest first, each verified; all of them for `limit` 0."""
    found: dict[str, Listed] = {}
    last = ""
    while True:
        request = ListPointsRequest(machine_id=machine.machine_id, limit=limit, older_than=last)
        records = connection.vault.ListPoints(request).points
        fresh = [record for record in records if record.point_id not in found]
        found |= {one.point_id: _listed(connection, machine, one) for one in fresh}
        if limit or not fresh:
            return list(found.values())
        last = fresh[-1].point_id


def seen_by(connection: Connection) -> Seen:
    """What this profile remembers of restore points."""
    return Seen(connection.home.path / "seen")


def roll_back_problem(connection: Connection, machine: Machine, latest: Listed | None) -> str:
    """Why the latest point that the controller shows is none; empty when all is well."""
    shown = PointId(latest.id) if latest is not None else None
    return seen_by(connection).problem(MachineId(machine.machine_id), shown)


def point_meant(connection: Connection, machine: Machine, name: str) -> RestorePoint:
    """The restore point that `name` means, see `controller.cli.points.chosen`.

    NOT_FOUND when there is none, BAD_SIGNATURE when it is not to be believed, and when it
    is older than the latest one that this profile has opened before.
    """
    found = list_points(connection, machine, limit=1 if name == LATEST else 0)
    if name == LATEST:
        problem = roll_back_problem(connection, machine, found[0] if found else None)
        if problem:
            raise RolledBackError(problem)
    return believed(choose(found, name, machine=machine.name, now=clock.now()))


def believed(listed: Listed) -> RestorePoint:
    """The restore point of a listing; BAD_SIGNATURE when it is not to be believed."""
    if listed.point is None:
        raise SteadError(
            f"restore point {listed.id} is not to be believed: {listed.problem}",
            code=Code.BAD_SIGNATURE,
        )
    return listed.point


def open_point(
    connection: Connection, point: RestorePoint, readers: Readers | None = None
) -> Opened:
    """Open a restore point with the tenant's recovery key from this profile.

    Reads its root, which only a machine of the tenant can have made: `ChunkDamagedError`
    when somebody else did. `readers` are shared by points that are opened together.
    """
    tenant = TenantId(point.tenant)
    key = key_of_point(connection, point)
    contents = open_contents(key.recovery_private, point)
    secret = machine_scope(key.secret, point.machine) if point.scope == "machine" else key.secret

    def fetch(ids: Sequence[ChunkId]) -> Iterator[bytes]:
        return fetch_chunks(connection, tenant, ids)

    readers = {} if readers is None else readers
    if secret.convergence not in readers:
        opener = Opener(secret)
        readers[secret.convergence] = CachedReader(opener, fetch), Chunks(opener, fetch)
    reader, chunks = readers[secret.convergence]
    for _ in reader.nodes([contents.root]):
        seen_by(connection).remember(MachineId(point.machine), PointId(point.id))
    return Opened(
        point, contents.root, reader, chunks, secret, tenant, connection, contents.skipped
    )


def paths_of(connection: Connection, point: RestorePoint) -> tuple[bytes, ...] | None:
    """What a restore point was made of; None when this profile has not got the key."""
    tenant = TenantId(point.tenant)
    if not connection.keyring.has(tenant):
        return None
    try:
        key = connection.keyring.load(tenant).of_point(point)
    except NotFoundError:
        return None
    return open_contents(key.recovery_private, point).paths


def contents_of(opened: Opened) -> Contents:
    """What only whoever has the recovery key knows of a restore point that was opened."""
    return open_contents(
        key_of_point(opened.connection, opened.point).recovery_private, opened.point
    )


def check_record(root: x509.Certificate, machine: Machine, record: bytes) -> RestorePoint:
    """The restore point of a record, once signature, certificates and names are right.

    A machine's certificate lasts days and its restore points years, so the certificates
    are judged as of the time at which the point was begun.
    """
    envelope = decode_envelope(record)
    point = verify_point(envelope)
    try:
        leaf, *above = [x509.load_der_x509_certificate(der) for der in envelope.chain]
    except UNREADABLE as error:
        raise PointSignatureError("it carries an unreadable certificate") from error
    identity = believe(leaf, root=root, issuing=above, now=point.started_at)
    if identity != MachineIdentity(TenantId(point.tenant), MachineId(point.machine)):
        raise PointSignatureError("another machine signed it than the one it names")
    if (point.machine, point.tenant) != (machine.machine_id, machine.tenant_id):
        raise PointSignatureError("it is another machine's")
    return point


def fetch_chunks(
    connection: Connection, tenant: TenantId, ids: Sequence[ChunkId]
) -> Iterator[bytes]:
    """Stored chunks in the order of `ids`, as the controller sends them, unverified."""
    wanted = list(dict.fromkeys(ids))
    request = GetRequest(tenant_id=tenant, chunk_ids=wanted)
    answers = (c for answer in answers_of(connection.vault.Get(request)) for c in answer.chunks)
    try:
        given = dict(zip(wanted, answers, strict=False))
    except grpc.RpcError as error:
        raise connection.explain(error) from error
    for name in ids:
        if name not in given:
            raise ChunkMissingError(name)
        yield given[name]


def entry_at(opened: Opened, path: bytes) -> Entry:
    """What lies at a path; NOT_FOUND when nothing does."""
    try:
        return opened.reader.get(opened.root, path)
    except NotFoundError:
        raise NotFoundError(
            f"/{path.decode(errors='backslashreplace')} is not in restore point "
            f"{opened.point.id}; `stead backup browse` shows what is"
        ) from None


def content(opened: Opened, entry: Entry) -> Iterator[bytes]:
    """A file's content, piece by piece, each verified; holes are zeros."""
    return pieces_of(opened.reader, opened.chunks, entry)


def tree_path(text: str) -> bytes:
    """A path in a restore point, from how a person writes it.

    >>> tree_path("/etc/hosts"), tree_path("/")
    (b'etc/hosts', b'')
    """
    path = text.encode(errors="surrogateescape").strip(b"/")
    if not is_path(path):
        raise NotFoundError(f"{text[:200]!r} cannot be a path in a restore point")
    return path


def is_directory(entry: Entry) -> bool:
    """Whether something can be below an entry."""
    return entry.kind is Kind.DIRECTORY


def _listed(connection: Connection, machine: Machine, record: PointRecord) -> Listed:
    received = from_wire_ms(record.received_at_ms)
    try:
        point = check_record(connection.root, machine, record.record)
        if point.id != record.point_id:
            raise PointSignatureError("the controller lists it by another id")
        paths = paths_of(connection, point)
    except SteadError as error:
        return Listed(record.point_id, received, None, problem=str(error))
    return Listed(record.point_id, received, point, paths)
