"""Get chunks for a restore: a window ahead, several calls at once, opened in a burst.

Calls are begun early, so the transport fills its buffers while the files of the window
before are written. Where these are small, the answers are read late: a thread that takes
chunks in beside the one that writes files makes each of its short system calls wait for the
interpreter lock. Where they are large, that thread is in the kernel nearly all the time, and
the answers are read and opened beside it.
What one window used stays for the next as far as `CACHE_BYTES` reach, so a chunk that
neighbours share is fetched once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from agent.backup.restore.flow import Flow
from agent.backup.send.upload import patiently
from agent.backup.send.vault import DATA_LOSS, LinkLostError, Vault
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener, Reference
from protocol.vault.keys import VaultSecret

CACHE_BYTES = 12 * 1024 * 1024
CALL_BYTES = 4 * 1024 * 1024
THREADS = 3

Stored = dict[ChunkId, bytes | SteadError]
Plain = dict[ChunkId, bytes | SteadError]


class Call(NamedTuple):
    """Chunks that were asked for, and the answer as it comes; None before it is asked for.

    `size` is that of their plain content.
    """

    ids: list[ChunkId]
    answer: Iterator[bytes] | None
    size: int


class Fetcher:
    """Fetches and opens chunks. Use as a context."""

    def __init__(
        self,
        vault: Vault,
        secret: VaultSecret,
        seed: random.Random,
        *,
        patience_s: float,
        flow: Flow | None = None,
    ) -> None:
        self._vault = vault
        self._flow = flow or Flow()
        self._secret = secret
        self._seed = seed
        self._patience_s = patience_s
        self._burst = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        self._mine = threading.local()
        self._cache: Plain = {}
        self.fetched_bytes = 0

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._burst.shutdown(cancel_futures=True)

    def nodes(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """The stored bytes of tree chunks, for `TreeReader`; raises what is wrong with one."""
        found = self._call(list(ids))
        for one in ids:
            stored = found[one]
            if isinstance(stored, SteadError):
                raise stored
            yield stored

    def start(self, references: Sequence[Reference]) -> list[Call]:
        """Begin to fetch what a window needs; the transport reads ahead by itself.

        With a limit nothing is begun before its turn, and less is asked for at once.
        """
        most = min(self._flow.call_bytes or CALL_BYTES, CALL_BYTES)
        calls: list[Call] = []
        ids: list[ChunkId] = []
        size = 0
        for reference in references:
            ids.append(reference.id)
            size += reference.length
            if size >= most:
                calls.append(Call(ids, self._begin(ids), size))
                ids, size = [], 0
        if ids:
            calls.append(Call(ids, self._begin(ids), size))
        return calls

    def open(self, wanted: dict[ChunkId, Reference], calls: Sequence[Call]) -> list[Future[Plain]]:
        """Begin to read calls to their ends and to open what they bring."""
        return [self._burst.submit(self._finish, wanted, call) for call in calls]

    def plain(self, wanted: dict[ChunkId, Reference], opening: Sequence[Future[Plain]]) -> Plain:
        """The content of a window's chunks: those being opened, and of earlier windows."""
        window: Plain = {one: self._cache[one] for one in wanted if one in self._cache}
        for opened in opening:
            window.update(opened.result())
        missing = [one for one in wanted if one not in window]
        if missing:
            # Dropped from the cache between planning and now.
            window.update(self._finish(wanted, Call(missing, iter(()), 0)))
        return window

    def _begin(self, ids: Sequence[ChunkId]) -> Iterator[bytes] | None:
        return None if self._flow.limit else self._ask(ids)

    def _ask(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        try:
            return self._vault.get(ids)
        except LinkLostError:
            return iter(())

    def _finish(self, wanted: dict[ChunkId, Reference], call: Call) -> Plain:
        """Read a call to its end and open what came; ask again for what did not come."""
        opened: Plain = {}
        got = came = 0
        answer = call.answer
        if answer is None:
            self._flow.take(call.size)
            answer = self._ask(call.ids)
        try:
            for stored in answer:
                opened[call.ids[got]] = self._open(wanted[call.ids[got]], stored)
                got += 1
                came += len(stored)
                self._flow.hold()
        except SteadError as error:
            if not isinstance(error, LinkLostError) and error.code not in DATA_LOSS:
                raise
        if call.answer is None:
            self._flow.settle(call.size, came)
        if got < len(call.ids):
            for one, found in self._call(call.ids[got:]).items():
                opened[one] = (
                    found if isinstance(found, SteadError) else self._open(wanted[one], found)
                )
        return opened

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

    def _open(self, reference: Reference, stored: bytes) -> bytes | SteadError:
        opener: Opener | None = getattr(self._mine, "opener", None)
        if opener is None:
            opener = self._mine.opener = Opener(self._secret)
        self.fetched_bytes += len(stored)
        try:
            return opener.open(stored, reference)
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
                        self._flow.take(len(stored))
                except LinkLostError:
                    left = left[got:]
                    raise
                except SteadError as error:
                    if error.code not in DATA_LOSS:
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
