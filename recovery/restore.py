"""Write restore points to a directory here: the agent's own engine over a directory of objects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.backup.placer import Done
from agent.backup.restore import Restore
from agent.backup.vault import Answer, Batch, Session
from protocol.errors import Code, NotFoundError, SteadError
from protocol.vault.chunk import ChunkId, Opener
from protocol.vault.node import Root
from protocol.vault.path import below_range, tree_key
from protocol.vault.reader import Span, TreeReader
from recovery.objects import Objects
from recovery.points import Recoverable


class ReadOnlyError(SteadError):
    """Something was to be written into objects that are only read."""

    code = Code.UNSUPPORTED


class ObjectsVault:
    """The port of a restore to its vault; all that writes is refused."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def begin(self, point: str) -> Session:
        """Refused."""
        raise ReadOnlyError(f"{point} cannot be written here")

    def has(self, session: str, ids: Sequence[ChunkId]) -> Answer:
        """Refused."""
        raise ReadOnlyError(f"{len(ids)} chunks cannot be asked for in {session}")

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:  # noqa: ARG002
        """Refused."""
        raise ReadOnlyError(f"{session} cannot be written here")

    def commit(self, session: Session, record: bytes) -> datetime:  # noqa: ARG002
        """Refused."""
        raise ReadOnlyError(f"{session.id} cannot be written here")

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """See `Objects.get`."""
        return self._objects.get(ids)


def restore_path(
    one: Recoverable,
    path: bytes,
    target: Path,
    objects: Objects,
    *,
    overwrite: bool,
    progress: Callable[[Mapping[str, Any]], None],
) -> Done:
    """Restore what lies at a path, all for an empty one; what could not be is in the answer.

    Nodes that are damaged cost what is below them and nothing else. NOT_FOUND when nothing
    is at the path.
    """
    root = one.contents.root
    spans = [Span((root,), b"", None)]
    if path:
        key = tree_key(path)
        spans = [Span((root,), key, key + b"\0"), Span((root,), *below_range(path))]
        reader = TreeReader(Opener(one.secret), objects.get, _unnoticed)
        if next(reader.read(*spans), None) is None:
            raise NotFoundError(
                f"/{path.decode(errors='backslashreplace')} is not in restore point {one.id}, or "
                "the part of its tree that names it is lost"
            )
    restore = Restore(
        spans,
        strip=path.rpartition(b"/")[0],
        target=bytes(target),
        overwrite=overwrite,
        vault=ObjectsVault(objects),
        secret=one.secret,
        seed=random.Random(0),  # noqa: S311 - nothing is asked twice
        progress=progress,
        patience_s=0.0,
    )
    return restore.run()


def _unnoticed(_node: Root, _reason: SteadError) -> None:
    """The restore itself tells what is lost."""
