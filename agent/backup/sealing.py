"""Seal data chunks on threads of their own and hand them to whoever sends them.

Hashing, compressing and encrypting let go of the interpreter lock, so these threads
run beside the one that does all the file work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue

from protocol.vault.chunk import Buffer, Kind, Reference, Sealer
from protocol.vault.keys import VaultSecret

Give = Callable[[Reference, bytes], None]
IN_FLIGHT_BYTES = 12 * 1024 * 1024


class Ticket:
    """A chunk that is being sealed; `reference` is there when it is done."""

    __slots__ = ("known", "plain", "reference")

    def __init__(self, plain: Buffer, known: Mapping[bytes, Reference] | None) -> None:
        self.plain: Buffer | None = plain
        self.known = known
        self.reference: Reference | None = None


class Sealing:
    """Seals what is submitted; `give` is called on the sealing threads, before a ticket is done.

    `failure` is what a thread died of; `submit` and `wait` raise it. Use as a context.
    """

    def __init__(self, secret: VaultSecret, give: Give, *, threads: int = 2) -> None:
        self._secret = secret
        self._give = give
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()
        self._done = threading.Condition()
        self._in_flight = 0
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"seal-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Sealing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, plain: Buffer, known: Mapping[bytes, Reference] | None = None) -> Ticket:
        """Seal a chunk; waits while too much is under way.

        `known` maps fingerprints to chunks that the vault holds already: one of them is
        not compressed again.
        """
        ticket = Ticket(plain, known)
        size = len(plain)
        with self._done:
            while self._in_flight > IN_FLIGHT_BYTES and self._failure is None:
                self._done.wait()
            if self._failure is not None:
                raise self._failure
            self._in_flight += size
        self._queue.put(ticket)
        return ticket

    def settle(self) -> None:
        """Wait until nothing is under way.

        Many short system calls beside busy threads take several times as long, because
        each of them gives the interpreter lock away: who makes them settles first.
        """
        with self._done:
            while self._in_flight and self._failure is None:
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

    def _run(self) -> None:
        sealer = Sealer(self._secret)
        while (ticket := self._queue.get()) is not None:
            plain = ticket.plain
            assert plain is not None
            try:
                if self._failure is None:
                    reference = self._seal(sealer, plain, ticket.known)
                else:
                    reference = None
            except BaseException as failure:  # noqa: BLE001 - raised by submit and wait
                self._failure = failure
                reference = None
            ticket.plain = None
            with self._done:
                ticket.reference = reference
                self._in_flight -= len(plain)
                self._done.notify_all()

    def _seal(
        self, sealer: Sealer, plain: Buffer, known: Mapping[bytes, Reference] | None
    ) -> Reference:
        fingerprint = None
        if known:
            fingerprint = sealer.fingerprint(plain)
            found = known.get(fingerprint)
            if found is not None and found.length == len(plain):
                return found
        reference, stored = sealer.seal(Kind.DATA, plain, fingerprint=fingerprint)
        self._give(reference, stored)
        return reference
