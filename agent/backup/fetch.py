"""Get chunks for a restore: a window ahead, several calls at once, opened in a burst.

What one window used stays for the next as far as `CACHE_BYTES` reach, so a chunk that
neighbours share is fetched once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from agent.backup.upload import patiently
from agent.backup.vault import LinkLostError, Vault
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener, Reference
from protocol.vault.keys import VaultSecret

CACHE_BYTES = 24 * 1024 * 1024
CALL_BYTES = 4 * 1024 * 1024
CALLS_AT_ONCE = 3
OPENERS = 2
_DATA_LOSS = frozenset({Code.CHUNK_MISSING, Code.CHUNK_DAMAGED, Code.PACK_DAMAGED})

Stored = dict[ChunkId, bytes | SteadError]
Plain = dict[ChunkId, bytes | SteadError]


class Fetcher:
    """Fetches and opens chunks. Use as a context."""

    def __init__(
        self, vault: Vault, secret: VaultSecret, seed: random.Random, *, patience_s: float
    ) -> None:
        self._vault = vault
        self._secret = secret
        self._seed = seed
        self._patience_s = patience_s
        self._calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="fetch")
        self._burst = ThreadPoolExecutor(OPENERS, thread_name_prefix="open")
        self._mine = threading.local()
        self._cache: Plain = {}
        self.fetched_chunks = 0
        self.fetched_bytes = 0

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.shutdown(cancel_futures=True)
        self._burst.shutdown(cancel_futures=True)

    def nodes(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """The stored bytes of tree chunks, for `TreeReader`; raises what is wrong with one."""
        found = self._call(list(ids))
        for one in ids:
            stored = found[one]
            if isinstance(stored, SteadError):
                raise stored
            yield stored

    def start(self, references: Sequence[Reference]) -> list[Future[Stored]]:
        """Begin to fetch what a window needs."""
        calls: list[Future[Stored]] = []
        ids: list[ChunkId] = []
        size = 0
        for reference in references:
            ids.append(reference.id)
            size += reference.length
            if size >= CALL_BYTES:
                calls.append(self._calls.submit(self._call, ids))
                ids, size = [], 0
        if ids:
            calls.append(self._calls.submit(self._call, ids))
        return calls

    def plain(self, wanted: dict[ChunkId, Reference], calls: list[Future[Stored]]) -> Plain:
        """The content of a window's chunks: those of its calls, and of earlier windows."""
        window: Plain = {}
        for one in wanted:
            if one in self._cache:
                window[one] = self._cache[one]
        work: list[tuple[Reference, bytes]] = []
        for call in calls:
            for one, stored in call.result().items():
                if isinstance(stored, SteadError):
                    window[one] = stored
                else:
                    work.append((wanted[one], stored))
                    self.fetched_chunks += 1
                    self.fetched_bytes += len(stored)
        for reference, content in zip(work, self._burst.map(self._open, work), strict=True):
            window[reference[0].id] = content
        missing = [wanted[one] for one in wanted if one not in window]
        if missing:
            # Dropped from the cache between planning and now.
            for one, stored in self._call([one.id for one in missing]).items():
                window[one] = (
                    stored if isinstance(stored, SteadError) else self._open((wanted[one], stored))
                )
        return window

    def has(self, identity: ChunkId) -> bool:
        """Whether a chunk is at hand from an earlier window."""
        return identity in self._cache

    def keep(self, window: Plain) -> None:
        """Keep the last chunks of a window, the newest being the likeliest to be shared."""
        kept: Plain = {}
        size = 0
        for one in reversed(window):
            content = window[one]
            size += 0 if isinstance(content, SteadError) else len(content)
            if size > CACHE_BYTES:
                break
            kept[one] = content
        self._cache = dict(reversed(kept.items()))

    def _open(self, work: tuple[Reference, bytes]) -> bytes | SteadError:
        opener: Opener | None = getattr(self._mine, "opener", None)
        if opener is None:
            opener = self._mine.opener = Opener(self._secret)
        try:
            return opener.open(work[1], work[0])
        except ChunkDamagedError as damage:
            return damage

    def _call(self, ids: list[ChunkId]) -> Stored:
        """Fetch chunks; what is lost or damaged gets its reason, the others come anyway."""
        found: Stored = {}
        left = ids
        alone = False

        def ask() -> None:
            nonlocal left, alone
            while left:
                asked = left[:1] if alone else left
                got = 0
                try:
                    for stored in self._vault.get(asked):
                        found[asked[got]] = stored
                        got += 1
                except LinkLostError:
                    left = left[got:]
                    raise
                except SteadError as error:
                    if error.code not in _DATA_LOSS:
                        raise
                    left = left[got:]
                    # Which one it is about is certain only when one was asked for.
                    if alone:
                        found[asked[0]] = error
                        left = left[1:]
                    alone = not alone
                    continue
                left, alone = left[got:], False
                if got < len(asked):
                    self._cut_short()

        patiently(ask, self._seed, patience_s=self._patience_s)
        return found

    @staticmethod
    def _cut_short() -> None:
        raise LinkLostError("the controller sent fewer chunks than were asked for")
