"""Ask the vault what an earlier run stored of a file; what it lost is no reason to fail."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from agent.backup.scan.signs import DENSE, looks_encrypted, sample_of
from agent.backup.send.upload import patiently
from agent.backup.send.vault import DATA_LOSS, Vault
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkId, Opener
from protocol.vault.entry import Entry, Extent
from protocol.vault.keys import VaultSecret
from protocol.vault.reader import TreeReader


class Earlier:
    """The vault as a backup looks back at it. Raises `UnavailableError` after `patience_s`."""

    def __init__(
        self, vault: Vault, secret: VaultSecret, seed: random.Random, *, patience_s: float
    ) -> None:
        self._vault = vault
        self._seed = seed
        self._patience_s = patience_s
        self._reader = TreeReader(Opener(secret), self._fetch)

    def extents(self, entry: Entry) -> Iterator[Extent]:
        """The extents of a file; none where the lists of them are lost."""
        try:
            yield from self._reader.extents(entry.extents, entry.depth)
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise

    def dense_share(self, entries: Sequence[Entry]) -> float:
        """The share of files that could not be compressed when they were stored, 0 to 1.

        What was lost meanwhile counts as compressible: an alarm too many harms nobody.
        """
        dense = 0
        for entry in entries:
            if entry.inline is not None:
                dense += looks_encrypted(sample_of(entry.inline))
                continue
            extent = next(self.extents(entry), None)
            reference = extent.reference if extent is not None else None
            if reference is not None:
                dense += self._stored_bytes(reference.id) > reference.length * DENSE
        return dense / len(entries)

    def _stored_bytes(self, chunk: ChunkId) -> int:
        try:
            return sum(map(len, self._fetch([chunk])))
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            return 0

    def _fetch(self, ids: Sequence[ChunkId]) -> Iterable[bytes]:
        return patiently(
            lambda: list(self._vault.get(ids)), self._seed, patience_s=self._patience_s
        )
