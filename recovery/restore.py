"""Write restore points to a directory here: the agent's own engine over a directory of objects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.backup.restore.belonging import Owners
from agent.backup.restore.durable import Written
from agent.backup.restore.placed import Done
from agent.backup.restore.write import Restore
from agent.backup.send.vault import Answer, Batch, Session
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


@dataclass(frozen=True, slots=True)
class How:
    """How to restore; see the options of `stead backup restore`, which mean the same."""

    overwrite: bool = False
    owners: Owners = Owners.NAME
    flags: bool = False
    verify: bool = False


def spans_of(one: Recoverable, path: bytes, objects: Objects) -> list[Span]:
    """What it takes to read a path and all below it, all for an empty one.

    NOT_FOUND when nothing is at the path.
    """
    root = one.contents.root
    if not path:
        return [Span((root,), b"", None)]
    key = tree_key(path)
    spans = [Span((root,), key, key + b"\0"), Span((root,), *below_range(path))]
    reader = TreeReader(Opener(one.secret), objects.get, _unnoticed)
    if next(reader.read(*spans), None) is None:
        raise NotFoundError(
            f"/{path.decode(errors='backslashreplace')} is not in restore point {one.id}, or "
            "the part of its tree that names it is lost; without --to the restore points are "
            "listed with their paths"
        )
    return spans


def restore_path(
    one: Recoverable,
    path: bytes,
    spans: Sequence[Span],
    target: Path,
    objects: Objects,
    how: How,
    *,
    written: Written,
    progress: Callable[[Mapping[str, Any]], None],
) -> Done:
    """Restore what `spans_of` gave for a path; what could not be is in the answer.

    Nodes that are damaged cost what is below them and nothing else. `written` learns what
    is to be made durable. Raises `TargetFullError`.
    """
    restore = Restore(
        spans,
        strip=path.rpartition(b"/")[0],
        target=bytes(target),
        overwrite=how.overwrite,
        vault=ObjectsVault(objects),
        secret=one.secret,
        seed=random.Random(0),  # noqa: S311 - nothing is asked twice
        progress=progress,
        patience_s=0.0,
        owners=how.owners,
        flags=how.flags,
        verify=how.verify,
        written=written,
    )
    return restore.run()


def _unnoticed(_node: Root, _reason: SteadError) -> None:
    """The restore itself tells what is lost."""
