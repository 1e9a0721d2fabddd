"""Have data chunks sealed and hand them to whoever sends them.

One thread takes what the sealers have done; whoever cuts content goes on meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping

from agent.backup.cut.sealers import Job, Sealers
from protocol.errors import SteadError
from protocol.vault.chunk import Reference, Sealer
from protocol.vault.keys import VaultSecret

Give = Callable[[Reference, bytes], None]


class Block:
    """Memory that content is read into: `view`. Cut it, submit the chunks, then let it go."""

    __slots__ = ("left", "number", "view")

    def __init__(self, number: int, view: memoryview) -> None:
        self.number = number
        self.view = view
        self.left = 0


class Ticket:
    """A chunk that is being sealed; `reference` is there when it is done."""

    __slots__ = ("block", "reference")

    def __init__(self, block: Block | None, reference: Reference | None = None) -> None:
        self.block = block
        self.reference = reference


class Sealing:
    """Seals what is submitted; `give` is called on a thread of its own, before a ticket is done.

    What that thread died of is raised by the methods that wait. Use as a context.
    """

    def __init__(self, secret: VaultSecret, sealers: Sealers, give: Give) -> None:
        self._sealers = sealers
        self._give = give
        self._sealer = Sealer(secret)
        self._done = threading.Condition()
        self._free = deque(Block(*one) for one in enumerate(sealers.blocks))
        self._waiting: dict[tuple[int, int], Ticket] = {}
        self._failure: BaseException | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._take, name="sealed", daemon=True)

    def __enter__(self) -> Sealing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._done:
            self._ending = True
            self._done.notify_all()
        self._thread.join()

    def block(self) -> Block:
        """Memory of `BLOCK_BYTES` to fill; waits for the first that is free."""
        with self._done:
            while not self._free and self._failure is None:
                self._done.wait()
            if self._failure is not None:
                raise self._failure
            block = self._free.popleft()
            # Whoever fills it counts as one more who needs it.
            block.left = 1
        return block

    def submit(
        self, block: Block, start: int, end: int, known: Mapping[bytes, Reference] | None = None
    ) -> Ticket:
        """Seal a stretch of a block; nobody may write there any more.

        `known` maps fingerprints to chunks that the vault holds already: one of them is
        not compressed again.
        """
        fingerprint = None
        if known:
            plain = block.view[start:end]
            fingerprint = self._sealer.fingerprint(plain)
            found = known.get(fingerprint)
            if found is not None and found.length == len(plain):
                return Ticket(None, found)
        ticket = Ticket(block)
        with self._done:
            if self._failure is not None:
                raise self._failure
            self._waiting[block.number, start] = ticket
            block.left += 1
            self._done.notify_all()
        self._sealers.submit(Job(block.number, start, end - start, fingerprint))
        return ticket

    def let_go(self, block: Block) -> None:
        """Nothing more of a block will be submitted."""
        with self._done:
            self._leave(block)

    def settle(self) -> None:
        """Wait until nothing is under way, where that is better than to go on.

        Many short system calls beside busy threads take several times as long, because
        each of them gives the interpreter lock away: who makes them settles first.
        """
        if self._sealers.forked:
            return
        with self._done:
            while self._waiting and self._failure is None:
                self._done.wait()

    def wait(self, ticket: Ticket) -> Reference:
        """The reference of a ticket, once it is there."""
        if ticket.reference is None:
            with self._done:
                while ticket.reference is None and self._failure is None:
                    self._done.wait()
            if ticket.reference is None and self._failure is not None:
                raise self._failure
        assert ticket.reference is not None
        return ticket.reference

    def _take(self) -> None:
        """Take what is done until the end; what is under way is always waited for."""
        while self._may_come():
            try:
                for block, start, reference, stored in self._sealers.finished():
                    if stored is None:
                        self._fail(SteadError("a chunk could not be sealed"))
                    elif self._failure is None:
                        self._try_to_give(reference, stored)
                    with self._done:
                        ticket = self._waiting.pop((block, start))
                        if self._failure is None:
                            ticket.reference = reference
                        assert ticket.block is not None
                        self._leave(ticket.block)
                        ticket.block = None
            except SteadError as gone:
                self._fail(gone)
                return

    def _may_come(self) -> bool:
        with self._done:
            while not self._waiting and not self._ending:
                self._done.wait()
            return bool(self._waiting)

    def _try_to_give(self, reference: Reference, stored: bytes) -> None:
        try:
            self._give(reference, stored)
        except BaseException as failure:  # noqa: BLE001 - raised by those that wait
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        with self._done:
            if self._failure is None:
                self._failure = failure
            self._done.notify_all()

    def _leave(self, block: Block) -> None:
        block.left -= 1
        if not block.left:
            self._free.append(block)
        self._done.notify_all()
