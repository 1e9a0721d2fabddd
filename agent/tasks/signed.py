"""Keep the newest of what the root signs, whoever brings it; see `protocol.document`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from agent.host.files import read_if_there, write_atomically
from protocol.document import D
from protocol.errors import Code, SteadError


@dataclass(frozen=True, slots=True)
class Kept(Generic[D]):
    """One kind of document: its file, how it is read and checked, and what holds without one.

    `newer` says whether an offered one is to be taken, or raises why it must not be. `what` is
    what people call it: "the list of revoked operators".
    """

    path: Path
    read: Callable[[bytes], D]
    newer: Callable[[D, D], bool]
    none: D
    what: str

    def load(self) -> D:
        """The document that this machine keeps; `none` when it was never given one.

        Raises PRECONDITION when it is damaged: nobody is believed on the word of half of it.
        """
        try:
            data = read_if_there(self.path)
            return self.none if data is None else self.read(data)
        except (OSError, SteadError) as error:
            raise SteadError(
                f"{self.what} in {self.path} cannot be used: {error}; put it back from a copy, or "
                "remove it and have the agent connect again",
                code=Code.PRECONDITION,
            ) from error

    def take(self, data: bytes) -> tuple[D, bool]:
        """Keep a document that anybody may have sent when it is newer.

        The one in force, and whether it is this one and was not before. Durable when this
        returns. Raises BAD_SIGNATURE for one that this root did not sign, REPLAYED for an old
        one, STORE_FULL when it cannot be kept.
        """
        present = self.load()
        offered = self.read(data)
        if not self.newer(present, offered):
            return present, False
        write_atomically(self.path, data)
        return offered, True

    def take_along(self, data: bytes) -> None:
        """Keep what came with an order. One that is older than what is kept is no harm: the
        order was signed before the newer one. Raises like `take` otherwise.
        """
        try:
            self.take(data)
        except SteadError as error:
            if error.code is not Code.REPLAYED:
                raise
