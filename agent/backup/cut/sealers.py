"""Those who seal: threads of another process, or of this one where it cannot be forked.

Content lies in blocks of memory that both processes see. A job names a stretch of a
block; the sealed chunk comes back in its place, for it is at most `OVERHEAD_BYTES`
longer, and those come with the answer. So content crosses over without being sent, and
the many short system calls of whoever reads files share no interpreter with the sealing.
"""

from __future__ import annotations

import gc
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from protocol.errors import SteadError
from protocol.vault.chunk import (
    FINGERPRINT_BYTES,
    HEADER_BYTES,
    TAG_BYTES,
    ChunkId,
    Kind,
    Reference,
    Sealer,
)
from protocol.vault.keys import VaultSecret

BLOCK_BYTES: Final = 6 * 1024 * 1024
BLOCKS: Final = 3
THREADS: Final = 2
OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES

# Shorter than PIPE_BUF: a record goes through a pipe whole, whoever reads it.
_JOB: Final = struct.Struct("<III?16s")
_DONE: Final = struct.Struct("<IIII32s32s16s32s")
_AT_ONCE: Final = 64
_NO_FINGERPRINT: Final = bytes(FINGERPRINT_BYTES)


class Job(NamedTuple):
    """A stretch of a block to seal; `fingerprint` where it is known already."""

    block: int
    start: int
    length: int
    fingerprint: bytes | None = None


class Sealed(NamedTuple):
    """A job that is done; `stored` is None when the sealing failed."""

    block: int
    start: int
    reference: Reference
    stored: bytes | None


class SealersGoneError(SteadError):
    """The process that seals ended before its work did."""

    def __init__(self) -> None:
        super().__init__(
            "the process that compresses and encrypts was ended; is there too little memory? "
            "What was acknowledged is kept, run the backup again"
        )


class Sealers:
    """Seals what `submit` names. Use as a context; one `Sealing` at a time."""

    def __init__(self, secret: VaultSecret, *, forked: bool = False) -> None:
        """Start them. `forked`: in a process of their own, made before others have threads.

        A fork copies no thread but its own, so libraries with threads have to be idle
        then; gRPC is as long as it has made no channel.
        """
        self._secret = secret
        self.blocks = [memoryview(mmap.mmap(-1, BLOCK_BYTES)) for _ in range(BLOCKS)]
        jobs, self._give_job = os.pipe()
        self._take_done, done = os.pipe()
        self._threads: list[threading.Thread] = []
        self._child = 0
        self.forked = forked
        if forked:
            gc.freeze()
            self._child = os.fork()
            if not self._child:
                self._be_child(jobs, done)
            gc.unfreeze()
            os.close(jobs)
            os.close(done)
        else:
            self._threads = [
                threading.Thread(target=self._serve, args=(jobs, done), name="seal", daemon=True)
                for _ in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()
            self._ends = (jobs, done)

    @property
    def processes(self) -> tuple[int, ...]:
        """The processes of their own."""
        return (self._child,) if self._child else ()

    def __enter__(self) -> Sealers:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._give_job)
        for thread in self._threads:
            thread.join()
        if self._child:
            os.waitpid(self._child, 0)
        else:
            for end in self._ends:
                os.close(end)
        os.close(self._take_done)

    def submit(self, job: Job) -> None:
        """Hand a job over. Raises `SealersGoneError`."""
        known = job.fingerprint
        record = _JOB.pack(*job[:3], known is not None, known or _NO_FINGERPRINT)
        try:
            os.write(self._give_job, record)
        except BrokenPipeError:
            raise SealersGoneError from None

    def finished(self) -> Iterator[Sealed]:
        """Wait for jobs that are done, in whatever order. Raises `SealersGoneError`.

        What was sealed is copied out of its block when its turn comes, so no more than
        one of them takes memory of its own at a time.
        """
        records = os.read(self._take_done, _DONE.size * _AT_ONCE)
        if not records:
            raise SealersGoneError
        return (self._sealed(*fields) for fields in _DONE.iter_unpack(records))

    def _sealed(
        self, block: int, start: int, length: int, stored_bytes: int,
        identity: bytes, key: bytes, fingerprint: bytes, rest: bytes,
    ) -> Sealed:  # fmt: skip
        reference = Reference(ChunkId(identity), key, length, fingerprint)
        if not stored_bytes:
            return Sealed(block, start, reference, None)
        content = self.blocks[block]
        if stored_bytes <= length:
            return Sealed(block, start, reference, bytes(content[start : start + stored_bytes]))
        stored = b"".join((content[start : start + length], rest[: stored_bytes - length]))
        return Sealed(block, start, reference, stored)

    def _be_child(self, jobs: int, done: int) -> None:
        """What the other process does; it ends when nobody is left to give it jobs."""
        code = 1
        try:
            os.close(self._give_job)
            os.close(self._take_done)
            others = [
                threading.Thread(target=self._serve, args=(jobs, done), daemon=True)
                for _ in range(THREADS - 1)
            ]
            for thread in others:
                thread.start()
            self._serve(jobs, done)
            for thread in others:
                thread.join()
            code = 0
        finally:
            os._exit(code)

    def _serve(self, jobs: int, done: int) -> None:
        sealer = Sealer(self._secret)
        while record := os.read(jobs, _JOB.size):
            block, start, length, is_known, fingerprint = _JOB.unpack(record)
            try:
                content = self.blocks[block][start : start + length]
                reference, stored = sealer.seal(
                    Kind.DATA, content, fingerprint=fingerprint if is_known else None
                )
                fits = min(len(stored), length)
                content[:fits] = stored[:fits]
                answer = _DONE.pack(
                    block, start, length, len(stored), reference.id, reference.key,
                    reference.fingerprint, stored[length:],
                )  # fmt: skip
            except Exception:  # noqa: BLE001 - told to whoever waits for the job
                answer = _DONE.pack(block, start, length, 0, b"", b"", b"", b"")
            try:
                os.write(done, answer)
            except BrokenPipeError:
                return
