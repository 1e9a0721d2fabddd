"""What can go wrong in the vault, beyond what the format itself names."""

from __future__ import annotations

from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId


class ChunkMissingError(SteadError):
    """A chunk is named and no pack of the tenant holds it."""

    code = Code.CHUNK_MISSING

    def __init__(self, chunk: ChunkId, wanted_by: ChunkId | None = None) -> None:
        if wanted_by is None:
            message = f"chunk {chunk.hex()} is in no pack; run `stead vault check`"
        else:
            message = (
                f"the tree chunk {wanted_by.hex()} names {chunk.hex()}, which is not held; "
                "send the children first"
            )
        super().__init__(message)
        self.chunk = chunk


class ChunkUnreadableError(ChunkDamagedError):
    """A chunk cannot be read, and nobody knows whether it is damaged."""


class SessionLostError(SteadError):
    """A backup's session is over: it ran out, or a newer one took its place."""

    code = Code.SESSION_LOST


class LimitError(SteadError):
    """More was asked for in one call than a call may ask for."""

    code = Code.LIMIT
