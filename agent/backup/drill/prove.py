"""Compare a file on the disk with what a restore point holds of it, by hashes of the whole.

Every chunk is fetched, checked against its id and key, and opened; so a hash that fits
says that the vault gives back the very bytes, and not only that it has something.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence

from blake3 import blake3

from agent.backup.far_time import mtime_of
from agent.backup.send.upload import patiently
from agent.backup.send.vault import DATA_LOSS, Vault
from agent.backup.skipped import reason_of
from agent.metadata.system import SYSTEM
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener
from protocol.vault.entry import Entry, Extent, as_file
from protocol.vault.keys import VaultSecret
from protocol.vault.reader import TreeReader

_AT_ONCE_BYTES = 8 * 1024 * 1024
_AT_ONCE = 256
_PIECE = 1024 * 1024
_CACHED = 512
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Prover:
    """Fetches and opens what a restore point holds. Not to be shared between threads.

    `hold` is called before something is fetched or a file is read: it may wait.
    """

    def __init__(
        self,
        vault: Vault,
        secret: VaultSecret,
        seed: random.Random,
        *,
        patience_s: float,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        self._hold = hold
        self._vault = vault
        self._seed = seed
        self._patience_s = patience_s
        self._opener = Opener(secret)
        self._nodes: dict[ChunkId, bytes] = {}
        self._at_hand: dict[ChunkId, bytes] = {}
        self.reader = TreeReader(Opener(secret), self._fetch_nodes)
        """Reads the tree; the nodes that it has read last are kept."""
        self.fetched_bytes = 0

    def fetch(self, entries: Sequence[Entry]) -> None:
        """Fetch the chunks of some files in one call, for the digests that follow.

        What the vault has lost or finds damaged is left out: the digest says so.
        """
        wanted = {
            extent.reference.id
            for entry in entries
            for content in (entry, *map(as_file, entry.streams))
            for extent in content.extents
            if extent.reference is not None and not content.depth
        }
        try:
            self._at_hand = self._get(list(wanted))
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            self._at_hand = {}

    def digest(self, entry: Entry) -> bytes:
        """BLAKE3 of a file's content as the vault gives it back.

        Raises `SteadError` when it does not give all of it.
        """
        whole = blake3()
        if entry.inline is not None:
            whole.update(entry.inline)
            return whole.digest()
        batch: list[Extent] = []
        size = 0
        for extent in self.reader.extents(entry.extents, entry.depth):
            batch.append(extent)
            size += extent.reference.length if extent.reference is not None else 0
            if size >= _AT_ONCE_BYTES or len(batch) >= _AT_ONCE:
                self._update(whole, batch)
                batch, size = [], 0
        self._update(whole, batch)
        return whole.digest()

    def problem(self, entry: Entry, path: bytes, *, is_live: bool = False) -> str | None:
        """Why a file on the disk is not what the vault holds; None when it is.

        Its named streams count where the volume has a place for them, and have to be whole
        in the vault at any rate. A live file may have lost some: that changes no time of it.
        """
        reason = self._problem(entry, path)
        if reason is None and entry.streams:
            reason = self._problem_beside(entry, path, is_live=is_live)
        return reason

    def _problem(self, entry: Entry, path: bytes) -> str | None:
        try:
            held = self.digest(entry)
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            return str(error)
        self._hold()
        try:
            found = file_digest(path)
        except OSError as error:
            return f"it cannot be read: {reason_of(error)}"
        if found is None:
            return "it changed while it was compared"
        return None if found == held else "it holds other bytes than were backed up"

    def _problem_beside(self, entry: Entry, path: bytes, *, is_live: bool) -> str | None:
        try:
            held = {one.name: self.digest(as_file(one)) for one in entry.streams}
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            return f"a named stream: {error}"
        try:
            found = stream_digests(path)
        except OSError as error:
            return f"its named streams cannot be read: {reason_of(error)}"
        if found is None:
            return None
        wanted = {one: held[one] for one in held if SYSTEM.takes_stream(one)}
        if is_live:
            wanted = {one: wanted[one] for one in wanted if one in found}
            found = {one: found[one] for one in found if one in wanted}
        if found == wanted:
            return None
        return "its named streams are not those that were backed up"

    def _update(self, whole: blake3, batch: Sequence[Extent]) -> None:
        references = {e.reference.id: e.reference for e in batch if e.reference is not None}
        stored = self._at_hand | self._get([one for one in references if one not in self._at_hand])
        plain = {
            one: self._opener.open(stored[one], reference) for one, reference in references.items()
        }
        for extent in batch:
            if extent.reference is None:
                for piece in _zeros(extent.length):
                    whole.update(piece)
                continue
            content = plain[extent.reference.id]
            part = memoryview(content)[extent.offset : extent.offset + extent.length]
            if len(part) != extent.length:
                raise ChunkDamagedError(extent.reference.id, "it is shorter than was noted")
            whole.update(part)

    def _fetch_nodes(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        missing = [one for one in dict.fromkeys(ids) if one not in self._nodes]
        if missing:
            if len(self._nodes) > _CACHED:
                self._nodes.clear()
            self._nodes |= self._get(missing)
        missing = [one for one in ids if one not in self._nodes]
        found = self._nodes | (self._get(missing) if missing else {})
        return iter([found[one] for one in ids])

    def _get(self, ids: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        if not ids:
            return {}
        self._hold()
        given = patiently(
            lambda: list(self._vault.get(ids)), self._seed, patience_s=self._patience_s
        )
        self.fetched_bytes += sum(map(len, given))
        return dict(zip(ids, given, strict=True))


def file_digest(path: bytes) -> bytes | None:
    """BLAKE3 of a regular file; None when it changed while it was read. Raises `OSError`."""
    file = os.open(path, _FLAGS)
    try:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise OSError("it is no regular file")
        whole = blake3()
        while piece := os.read(file, _PIECE):
            whole.update(piece)
        after = os.fstat(file)
    finally:
        os.close(file)
    same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    return whole.digest() if same else None


def stream_digests(path: bytes) -> dict[bytes, bytes] | None:
    """BLAKE3 of each named stream of a file; None where there is no place for any.

    Raises `OSError`.
    """
    above, _, name = path.rpartition(b"/")
    directory = os.open(above or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        listing = SYSTEM.streams(directory, name, found)
        if listing is None:
            return None
        return {one.name: _stream_digest(directory, name, one.name) for one in listing.streams}
    finally:
        os.close(directory)


def _stream_digest(directory: int, name: bytes, stream: bytes) -> bytes:
    whole = blake3()
    room = memoryview(bytearray(_PIECE))
    with SYSTEM.read_stream(directory, name, stream) as fill:
        while got := fill(room):
            whole.update(room[:got])
    return whole.digest()


def looks_unchanged(entry: Entry, path: bytes) -> bool:
    """Whether the live file has the size and the time that the restore point noted."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (
        entry.size,
        mtime_of(entry),
    )


def _zeros(length: int) -> Iterator[bytes]:
    whole, rest = divmod(length, _PIECE)
    piece = bytes(_PIECE)
    for _ in range(whole):
        yield piece
    if rest:
        yield piece[:rest]
