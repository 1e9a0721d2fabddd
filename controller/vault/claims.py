"""Who is about to write or delete a pack: one at a time for each name.

A pack is named by its content, so what is being deleted may come again at that very
moment. Whoever stores a pack claims its name from before the object is put until its
row is durable; whoever deletes one, from before it makes sure that no row names it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Claims:
    """Names that are taken; any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[tuple[str, str]] = set()

    def take(self, tenant: str, pack: str) -> None:
        """Wait until nobody has the name, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: (tenant, pack) not in self._taken)
            self._taken.add((tenant, pack))

    def give(self, tenant: str, pack: str) -> None:
        """Give the name back; any thread may, and again does no harm."""
        with self._changed:
            self._taken.discard((tenant, pack))
            self._changed.notify_all()

    @contextmanager
    def claimed(self, tenant: str, pack: str) -> Iterator[None]:
        """Hold the name inside the block."""
        self.take(tenant, pack)
        try:
            yield
        finally:
            self.give(tenant, pack)
