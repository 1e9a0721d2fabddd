"""Send chunks: ask first, send what is not held, keep it until it is durable, start over
when the link or the controller dies in the middle.

One thread asks and sends; several calls of `give` may run at once. A chunk is forgotten
when the vault said that it is held or durable. Order is kept, so a tree chunk that was
given after its children arrives after them.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from agent.backup.send.control import Control
from agent.backup.send.pace import Bucket
from agent.backup.send.vault import Answer, Batch, LinkLostError, Session, Vault
from agent.host import clock
from protocol.errors import Code, SteadError, UnavailableError
from protocol.vault.chunk import ChunkId, Reference

ROOM_BYTES = 36 * 1024 * 1024
FLUSH_BYTES = 28 * 1024 * 1024
ASK_BYTES = 4 * 1024 * 1024
ASK_CHUNKS = 256
ASKS_AHEAD = 4
MESSAGE_BYTES = 1024 * 1024
PATIENCE_S = 600.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_RECENT = 65_536
_SHUT = 2.0
_TICK_S = 0.3
_LINGER_S = 0.3
"""How long chunks wait for others to be asked for with them."""

_LOOK_S = 0.2
"""How often whoever waits for a turn looks whether the backup is paused."""

_FRUITLESS = 8


Answered = TypeVar("Answered")


class _Item(NamedTuple):
    id: ChunkId
    stored: bytes
    plain_bytes: int


def begin_patiently(
    vault: Vault, point: str, seed: random.Random, *, patience_s: float = PATIENCE_S
) -> Session:
    """Open a session, however long the controller is away, up to `patience_s`."""
    return patiently(lambda: vault.begin(point), seed, patience_s=patience_s)


def patiently(
    ask: Callable[[], Answered], seed: random.Random, *, patience_s: float = PATIENCE_S
) -> Answered:
    """Repeat a question while the link is lost, with full jitter; `UnavailableError` at last."""
    give_up = clock.monotonic() + patience_s
    longest = _FIRST_WAIT_S
    while True:
        try:
            return ask()
        except LinkLostError as lost:
            if clock.monotonic() >= give_up:
                raise UnavailableError(
                    f"the controller was away for {patience_s:.0f} s: {lost}; what was "
                    "acknowledged is kept, run the backup again"
                ) from lost
        threading.Event().wait(seed.uniform(0, longest))
        longest = min(longest * 2, _LONGEST_WAIT_S)


class Upload:
    """One backup's upload. `session` is the newest one; use as a context.

    `limit` is how many bytes leave in a second, 0 as many as can. `control` says when to wait.
    """

    def __init__(
        self,
        vault: Vault,
        session: Session,
        point: str,
        seed: random.Random,
        *,
        patience_s: float,
        limit: int = 0,
        control: Control | None = None,
    ) -> None:
        self.session = session
        self._vault = vault
        self._point = point
        self._seed = seed
        self._patience_s = patience_s
        self._control = control or Control()
        self._bucket = Bucket(limit) if limit else None
        self._message_bytes = min(
            MESSAGE_BYTES, self._bucket.message_bytes if self._bucket else MESSAGE_BYTES
        )
        self._lock = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._asked: deque[tuple[list[_Item], Answer]] = deque()
        self._sent: deque[_Item] = deque()
        self._unconfirmed = 0
        self._recent: dict[ChunkId, None] = {}
        self._room = 0
        self._closing = False
        self._flush_wanted = False
        self._cut_off = False
        self._done = False
        self._failure: BaseException | None = None
        self._inner_failure: Exception | None = None
        self.offered_chunks = self.new_chunks = self.new_bytes = self.new_plain_bytes = 0
        self.lost_links = 0
        self._fruitless = 0
        # Counts streams: what is left of one that broke off must not take from the next.
        self._stream_number = 0
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def __enter__(self) -> Upload:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._lock:
            if kind is not None and self._failure is None:
                self._failure = UnavailableError("the backup ended before its upload did")
            self._closing = self._cut_off = True
            self._lock.notify_all()
        self._thread.join(_SHUT)

    def give(self, reference: Reference, stored: bytes) -> None:
        """Take a sealed chunk; waits while too much is not durable yet."""
        identity = reference.id
        with self._lock:
            self.offered_chunks += 1
            if identity in self._recent:
                return
            while self._room > ROOM_BYTES and self._failure is None:
                self._lock.wait()
            if self._failure is not None:
                raise self._failure
            self._recent[identity] = None
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
            self._room += len(stored)
            self._queue.append(_Item(identity, stored, reference.length))
            self._lock.notify_all()

    def finish(self, tick: Callable[[], None] = lambda: None) -> Session:
        """Wait until everything is durable; the session in which to commit.

        `tick` is called a few times a second meanwhile.
        """
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        while True:
            with self._lock:
                if not self._done and self._failure is None:
                    self._lock.wait(_TICK_S)
                if self._failure is not None:
                    raise self._failure
                if self._done:
                    return self.session
            tick()

    def _run(self) -> None:
        try:
            while not self._done:
                try:
                    self._stream()
                except LinkLostError as lost:
                    self._take_up_again(lost)
                except SteadError as error:
                    if error.code is not Code.SESSION_LOST:
                        raise
                    self._take_up_again(error)
        except BaseException as failure:  # noqa: BLE001 - raised by give and finish
            with self._lock:
                self._failure = failure
                self._lock.notify_all()

    def _take_up_again(self, lost: SteadError) -> None:
        """Everything that is not durable goes to the front of the queue again."""
        self.lost_links += 1
        self._fruitless += 1
        if self._fruitless > _FRUITLESS:
            raise UnavailableError(
                f"the upload broke off {self._fruitless} times without getting any further: "
                f"{lost}; what was acknowledged is kept, run the backup again"
            ) from lost
        if self._fruitless > 1:
            longest = min(_FIRST_WAIT_S * 2**self._fruitless, _LONGEST_WAIT_S)
            threading.Event().wait(self._seed.uniform(0, longest))
        with self._lock:
            self._stream_number += 1
            self._lock.notify_all()
            again = [*self._sent]
            for items, _ in self._asked:
                again += items
            self._sent.clear()
            self._asked.clear()
            self._queue.extendleft(reversed(again))
            self._unconfirmed = 0
            self._inner_failure = None
        self.session = patiently(
            lambda: self._vault.begin(self._point), self._seed, patience_s=self._patience_s
        )

    def _stream(self) -> None:
        """One Put call, from its first message to the answer to its last."""
        counted = 0
        try:
            for durable in self._vault.put(self.session.id, self._batches(self._stream_number)):
                with self._lock:
                    while counted < durable and self._sent:
                        item = self._sent.popleft()
                        counted += 1
                        self._room -= len(item.stored)
                        self._fruitless = 0
                    self._lock.notify_all()
        except LinkLostError:
            if self._inner_failure is not None:
                raise self._inner_failure from None
            raise
        if self._inner_failure is not None:
            raise self._inner_failure
        with self._lock:
            if self._sent or self._asked or self._queue:
                raise LinkLostError("the controller ended an upload before all was durable")
            self._done = True
            self._lock.notify_all()

    def _batches(self, number: int) -> Iterator[Batch]:
        """What to send, as it comes. Runs on a thread of the transport."""
        try:
            yield from self._messages(number)
        except SteadError as error:
            with self._lock:
                if number == self._stream_number:
                    self._inner_failure = error

    def _messages(self, number: int) -> Iterator[Batch]:
        chunks: list[bytes] = []
        size = 0
        while True:
            self._hold(number)
            self._ask(number, wait=not chunks)
            wanted = self._answered(number)
            if wanted is None:
                if chunks:
                    self._wait_for_turn(number, size)
                    yield self._batch(chunks, size)
                    chunks, size = [], 0
                    continue
                # Nothing was asked for although it was waited for: the end.
                if number == self._stream_number and not self._cut_off:
                    yield Batch((), flush=True)
                return
            for item in wanted:
                chunks.append(item.stored)
                size += len(item.stored)
                if size >= self._message_bytes:
                    self._wait_for_turn(number, size)
                    yield self._batch(chunks, size)
                    chunks, size = [], 0

    def _wait_for_turn(self, number: int, size: int) -> None:
        """Wait until a message may leave, or nobody takes it any more. A pause pays for nothing."""
        with self._lock:
            now = clock.monotonic()
            turn = now + (self._bucket.take(size, now) if self._bucket else 0.0)
        while True:
            with self._lock:
                left = turn - clock.monotonic()
                if left <= 0 or number != self._stream_number or self._cut_off:
                    break
                self._lock.wait(min(left, _LOOK_S))
            if self._control.is_paused:
                began = clock.monotonic()
                self._hold(number)
                turn += clock.monotonic() - began
        self._hold(number)

    def _hold(self, number: int) -> None:
        self._control.hold(self.keep, lambda: number != self._stream_number or self._cut_off)

    def keep(self) -> None:
        """Renew the session's lease; a link that is lost is found when something is sent."""
        with suppress(SteadError):
            self._vault.has(self.session.id, []).result()

    def _ask(self, number: int, *, wait: bool) -> None:
        """Keep questions under way; `wait` for something to ask when there are none."""
        while len(self._asked) < ASKS_AHEAD:
            with self._lock:
                if number != self._stream_number:
                    return
                items = self._take(number, wait=wait and not self._asked)
                if not items:
                    return
                try:
                    answer = self._vault.has(self.session.id, [item.id for item in items])
                except SteadError:
                    self._queue.extendleft(reversed(items))
                    raise
                self._asked.append((items, answer))

    def _answered(self, number: int) -> list[_Item] | None:
        """What the oldest question's answer says is to be sent; None when none was asked."""
        with self._lock:
            if number != self._stream_number or not self._asked:
                return None
            items, answer = self._asked[0]
        held = answer.result()
        with self._lock:
            if number != self._stream_number:
                return None
            if len(held) != len(items):
                raise LinkLostError("the controller answered another question")
            self._asked.popleft()
            wanted = [item for item, is_held in zip(items, held, strict=True) if not is_held]
            self._sent += wanted
            self.new_plain_bytes += sum(item.plain_bytes for item in wanted)
            for item, is_held in zip(items, held, strict=True):
                if is_held:
                    self._room -= len(item.stored)
            self._lock.notify_all()
        return wanted

    def _batch(self, chunks: list[bytes], size: int) -> Batch:
        self.new_chunks += len(chunks)
        self.new_bytes += size
        self._unconfirmed += size
        flush = self._unconfirmed >= FLUSH_BYTES
        if flush:
            self._unconfirmed = 0
        return Batch(chunks, flush)

    def _take(self, number: int, *, wait: bool) -> list[_Item]:
        """The next chunks to ask for; with `wait` an empty answer means the end.

        Without, there is other work meanwhile, and few chunks go on waiting for others.
        """
        items: list[_Item] = []
        size = 0
        if not wait and not self._closing and not self._is_many():
            return items
        while wait and not self._closing and number == self._stream_number and not self._is_many():
            if not self._lock.wait(_LINGER_S if self._queue else None):
                break
        if self._cut_off or number != self._stream_number:
            return items
        while self._queue and size < ASK_BYTES and len(items) < ASK_CHUNKS:
            item = self._queue.popleft()
            size += len(item.stored)
            items.append(item)
        return items

    def _is_many(self) -> bool:
        """Whether what waits is worth a question, which costs as much as a message."""
        queue = self._queue
        return len(queue) >= ASK_CHUNKS or sum(len(item.stored) for item in queue) >= ASK_BYTES
