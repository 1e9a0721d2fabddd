"""The port to the vault: what a backup and a restore ask of the controller.

`send.py` speaks it over gRPC. Every method may raise `LinkLostError`, after which the same
question may be asked again, and other `SteadError`s, after which it may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId

MAX_IDS = 4096
DATA_LOSS = frozenset({Code.CHUNK_MISSING, Code.CHUNK_DAMAGED, Code.PACK_DAMAGED})
"""What an answer may say of single chunks, while the others are well."""


class LinkLostError(SteadError):
    """The controller went away in the middle; what was acknowledged is safe."""

    code = Code.UNAVAILABLE


class Session(NamedTuple):
    """An open session. `parent_point` is empty before the first restore point."""

    id: str
    fence: int
    parent_point: str
    parent_hash: bytes
    controller_time: datetime


class Batch(NamedTuple):
    """Whole stored chunks to put. `flush`: make everything up to here durable now."""

    chunks: Sequence[bytes]
    flush: bool = False


class Answer(Protocol):
    """An answer on its way."""

    def result(self) -> Sequence[bool]:
        """Wait for it."""


class Vault(Protocol):
    """What the controller keeps for this machine."""

    def begin(self, point: str) -> Session:
        """Open a session for the restore point to be, or take it up again."""

    def has(self, session: str, ids: Sequence[ChunkId]) -> Answer:
        """Ask which of at most `MAX_IDS` chunks are held; they stay for the session."""

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:
        """Send chunks; yields how many of them are durable, counted from the first."""

    def commit(self, session: Session, record: bytes) -> datetime:
        """Make the restore point; when the controller received it."""

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """Stored chunks in the order asked for, at most `MAX_IDS` of them.

        Ends early, with CHUNK_MISSING, at the first that is not there.
        """
