"""A vault in memory that keeps the promises of the controller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from agent.backup.send.vault import Batch, LinkLostError, Session
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId, chunk_id, inspect
from protocol.vault.point import RestorePoint, decode_envelope, point_hash, verify_point

FLUSH_CHUNKS = 64


class Answered:
    def __init__(self, held: Sequence[bool]) -> None:
        self._held = held

    def result(self) -> Sequence[bool]:
        return self._held


class MemoryVault:
    """`lose` is asked before each step and may raise `LinkLostError`; see `Vault`."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.points: list[tuple[RestorePoint, bytes]] = []
        self.received = 0
        self.asked = 0
        self.lose: Callable[[str], None] = lambda _step: None
        self._fence = 0
        self._open: str | None = None
        self._hashes: dict[str, bytes] = {}

    def begin(self, point: str) -> Session:
        self.lose("begin")
        if point in self._hashes:
            raise SteadError("committed already", code=Code.ALREADY_EXISTS)
        identity = "vs_" + point.removeprefix("rp_")
        if self._open != identity:
            self._fence += 1
            self._open = identity
        newest = self.points[-1][0].id if self.points else ""
        parent_hash = self._hashes[newest] if newest else b""
        return Session(identity, self._fence, newest, parent_hash, datetime.now(UTC))

    def has(self, session: str, ids: Sequence[ChunkId]) -> Answered:
        self.lose("has")
        self.asked += len(ids)
        return Answered([one in self.chunks for one in ids])

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:
        """What is not durable yet when the link is lost is lost too."""
        waiting: list[bytes] = []
        durable = 0
        for batch in batches:
            self.lose("put")
            if session != self._open:
                raise SteadError("no such session", code=Code.SESSION_LOST)
            waiting += batch.chunks
            self.received += len(batch.chunks)
            if batch.flush or len(waiting) >= FLUSH_CHUNKS:
                for stored in waiting:
                    self._keep(stored)
                durable += len(waiting)
                waiting.clear()
                yield durable
        for stored in waiting:
            self._keep(stored)
        yield durable + len(waiting)

    def _keep(self, stored: bytes) -> None:
        for child in inspect(stored).children:
            if child not in self.chunks:
                raise SteadError(f"{child.hex()} is not held", code=Code.CHUNK_MISSING)
        self.chunks[chunk_id(stored)] = stored

    def commit(self, session: Session, record: bytes) -> datetime:
        self.lose("commit")
        envelope = decode_envelope(record)
        point = verify_point(envelope)
        if point.id not in self._hashes:
            if (session.id, session.fence) != (self._open, self._fence):
                raise SteadError("no such session", code=Code.SESSION_LOST)
            if point.root not in self.chunks:
                raise SteadError("the root is not held", code=Code.CHUNK_MISSING)
            self._hashes[point.id] = point_hash(envelope.body)
            self.points.append((point, record))
        self.lose("committed")
        return datetime.now(UTC)

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        for one in ids:
            self.lose("get")
            if one not in self.chunks:
                raise SteadError(f"{one.hex()} is in no pack", code=Code.CHUNK_MISSING)
            yield self.chunks[one]


def lost(_step: str) -> None:
    raise LinkLostError("the link broke")
