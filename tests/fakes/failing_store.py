"""An object store that fails on demand, before or after it did what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from controller.store.store import ObjectStore, Piece, StoreFailedError, StoreFullError

T = TypeVar("T")
Call = Literal["put", "get", "list", "delete"]
CALLS: tuple[Call, ...] = ("put", "get", "list", "delete")


@dataclass
class Fault:
    """The call of this kind fails after `spared` others have not, then no more."""

    call: Call
    spared: int = 0
    was_done: bool = False
    """Whether the call had its effect before it failed."""


@dataclass
class FailingStore:
    """See `controller.store.store.ObjectStore`; everything is kept by `kept`."""

    kept: ObjectStore
    faults: list[Fault] = field(default_factory=list)
    failed: int = 0

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        return self._do("put", lambda: self.kept.put(key, pieces))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._do("get", lambda: self.kept.get(key, offset, length))

    def size(self, key: str) -> int:
        return self.kept.size(key)

    def exists(self, key: str) -> bool:
        return self.kept.exists(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return self._do("list", lambda: self.kept.list(prefix))

    def delete(self, key: str) -> bool:
        return self._do("delete", lambda: self.kept.delete(key))

    def quarantine(self, key: str, reason: str) -> None:
        self.kept.quarantine(key, reason)

    def drop_cached(self, key: str) -> None:
        self.kept.drop_cached(key)

    def free_bytes(self) -> int | None:
        return self.kept.free_bytes()

    def _do(self, call: Call, act: Callable[[], T]) -> T:
        fault = next((one for one in self.faults if one.call == call), None)
        if fault is None:
            return act()
        if fault.spared:
            fault.spared -= 1
            return act()
        self.faults.remove(fault)
        self.failed += 1
        if fault.was_done:
            act()
        elif call == "put":
            raise StoreFullError("the store", free_bytes=0, needed_bytes=1)
        raise StoreFailedError(f"the disk failed in {call}")
