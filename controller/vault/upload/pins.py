"""What sessions that are under way rely on: nothing of it may be condemned.

A session relies on every chunk that it was told is held, and on every chunk that
something it sent names. Both are pinned before the index is asked. Pins are kept in
memory, eight bytes each: a controller that was restarted does not know them, so a
session that began before is a stranger, and collection waits for it or ends it.

`lock` is held while pins are added, which is short, and by the collector from before it
looks at the pins until what it condemned is in force. So a chunk is either pinned
before the collector looks, or looked up after it is done.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.vault.errors import SessionLostError
from protocol.vault.chunk import ChunkId

PREFIX_BYTES = 8


@dataclass(slots=True, eq=False)
class Pinned:
    """What one session, or an upload of it, relies on. For `Pins` alone to change."""

    tenant: str
    session: str
    fence: int
    whole: bool
    """Whether everything since the session began is known."""
    ended: bool = False
    streams: int = 0
    prefixes: array[int] = field(default_factory=lambda: array("Q"))
    seen: int = 0
    """So many of them the collector has looked at."""


def prefix_of(chunk: bytes) -> int:
    """What is kept of a pinned chunk's id. Two ids of one prefix are both pinned.

    >>> prefix_of(bytes(7) + bytes([1]) + bytes(24))
    1
    """
    return int.from_bytes(chunk[:PREFIX_BYTES], "big")


class Pins:
    """The pins of all sessions; any thread may use it. See the module."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._all: list[Pinned] = []
        self._of: dict[str, Pinned] = {}

    def began(self, tenant: str, session: str, fence: int) -> None:
        """A session began in this process, with this fence: all its pins will be known."""
        with self.lock:
            known = self._of.get(session)
            if known is not None:
                if known.fence == fence:
                    return
                known.ended = True
            self._enter(Pinned(tenant, session, fence, whole=True))

    def add(self, tenant: str, session: str, chunks: Iterable[ChunkId]) -> None:
        """Pin chunks for a session, before the index is asked for them.

        Raises `SessionLostError` when the session was ended by the collector.
        """
        with self.lock:
            _extend(self._current(tenant, session), chunks)

    def add_to(self, pinned: Pinned, chunks: Iterable[ChunkId]) -> None:
        """`add` for an upload that is under way."""
        with self.lock:
            _extend(pinned, chunks)

    def enter(self, tenant: str, session: str) -> Pinned:
        """An upload of a session is under way: its pins stay, whatever becomes of the session."""
        with self.lock:
            pinned = self._current(tenant, session)
            pinned.streams += 1
        return pinned

    def leave(self, pinned: Pinned) -> None:
        """Everything that the upload sent is recorded, or never will be."""
        with self.lock:
            pinned.streams -= 1

    def strangers(self, alive: Iterable[str]) -> list[str]:
        """Those of living sessions whose pins are not all known."""
        return [
            session
            for session in alive
            if (pinned := self._of.get(session)) is None or not pinned.whole
        ]

    def begin_generation(self, tenant: str, alive: Iterable[str]) -> None:
        """Let go of what ended sessions had pinned. What is pinned counts as fresh again.

        Called with the lock held, before the collector reads which packs there are.
        """
        living, kept = set(alive), []
        for pinned in self._all:
            if pinned.tenant != tenant:
                kept.append(pinned)
                continue
            pinned.seen = 0
            is_current = self._of.get(pinned.session) is pinned
            if pinned.session not in living or not is_current:
                pinned.ended = True
            if pinned.streams or not pinned.ended:
                kept.append(pinned)
            elif is_current:
                del self._of[pinned.session]
        self._all = kept

    def fresh(self, tenant: str) -> list[int]:
        """Prefixes that were pinned since this was asked last. The lock need not be held."""
        found: list[int] = []
        for pinned in list(self._all):
            if pinned.tenant == tenant:
                end = len(pinned.prefixes)
                found += pinned.prefixes[pinned.seen : end]
                pinned.seen = end
        return found

    def _current(self, tenant: str, session: str) -> Pinned:
        known = self._of.get(session)
        return known if known is not None else self._enter(Pinned(tenant, session, 0, whole=False))

    def _enter(self, pinned: Pinned) -> Pinned:
        self._all.append(pinned)
        self._of[pinned.session] = pinned
        return pinned


def _extend(pinned: Pinned, chunks: Iterable[ChunkId]) -> None:
    if pinned.ended:
        raise SessionLostError(
            "the session was ended while it was out of use; begin again with the same point, "
            "what was acknowledged is kept"
        )
    pinned.prefixes.extend(map(prefix_of, chunks))
