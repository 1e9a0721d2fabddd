"""An object store in memory, for simulators and quick tests; it has a size limit on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from controller.store.store import (
    ObjectMissingError,
    Piece,
    StoreFullError,
    check_key,
    check_range,
)
from protocol.errors import InvalidError


class MemoryStore:
    """See `controller.store.store.ObjectStore`. `capacity_bytes` None means without limit."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.objects: dict[str, bytes] = {}
        self.quarantined: list[tuple[str, str, bytes]] = []
        self._folders: set[str] = set()
        self._lock = threading.Lock()

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        if self.exists(key):
            return False
        content = b"".join(pieces)
        with self._lock:
            if key in self.objects:
                return False
            free = self._free()
            if free is not None and len(content) > free:
                raise StoreFullError("memory", free_bytes=free, needed_bytes=len(content))
            parents = _parents(key)
            if key in self._folders or any(parent in self.objects for parent in parents):
                raise InvalidError("a key cannot begin with another key and a slash")
            self._folders.update(parents)
            self.objects[key] = content
        return True

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        content = self._of(key)
        return content[offset:] if length is None else content[offset : offset + length]

    def size(self, key: str) -> int:
        return len(self._of(key))

    def exists(self, key: str) -> bool:
        return check_key(key) in self.objects

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        with self._lock:
            found = sorted((key, len(body)) for key, body in self.objects.items())
        return (pair for pair in found if pair[0].startswith(prefix))

    def delete(self, key: str) -> bool:
        with self._lock:
            return self.objects.pop(check_key(key), None) is not None

    def quarantine(self, key: str, reason: str) -> None:
        with self._lock:
            self.quarantined.append((key, reason, self._of(key)))
            del self.objects[key]

    def drop_cached(self, key: str) -> None:
        check_key(key)

    def free_bytes(self) -> int | None:
        with self._lock:
            return self._free()

    def _free(self) -> int | None:
        if self.capacity_bytes is None:
            return None
        return self.capacity_bytes - sum(map(len, self.objects.values()))

    def _of(self, key: str) -> bytes:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise ObjectMissingError(key) from None


def _parents(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
