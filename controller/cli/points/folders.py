"""The folders of a restore point as a tree, each with the sum of what lies below it.

The sums come from the totals inside the tree's nodes, so a folder of a million files costs
no more than one of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from controller.cli.output.entries import text_of, time_of
from controller.cli.points.opened import Opened
from protocol.vault.entry import Entry, Kind
from protocol.vault.node import Root
from protocol.vault.path import children_prefix, join
from protocol.vault.reader import Span
from protocol.vault.totals import Sum


def folder_rows(
    opened: Opened, path: bytes, top: Entry, *, depth: int, files: bool, largest: bool
) -> Iterator[dict[str, Any]]:
    """`top` at `path` and what is below it, `depth` levels deep, parents first.

    Folders alone, or with `files` everything. With `largest`, the children of a folder come
    by what is below them, the largest first, otherwise by name.
    """
    total = _sum(opened, path, top)
    yield _row(path, top, total, branch="")
    if top.kind is Kind.DIRECTORY and depth > 0:
        yield from _below(opened, path, depth, "", files=files, largest=largest)


def _below(
    opened: Opened, path: bytes, depth: int, before: str, *, files: bool, largest: bool
) -> Iterator[dict[str, Any]]:
    children = [
        (entry, _sum(opened, join(path, entry.name), entry))
        for entry in _children(opened, path, files=files)
    ]
    if largest:
        children.sort(key=lambda child: -child[1].bytes)
    for place, (entry, total) in enumerate(children):
        last = place == len(children) - 1
        below = join(path, entry.name)
        yield _row(below, entry, total, branch=before + ("└─ " if last else "├─ "))
        if entry.kind is Kind.DIRECTORY and depth > 1:
            deeper = before + ("   " if last else "│  ")
            yield from _below(opened, below, depth - 1, deeper, files=files, largest=largest)


def _children(opened: Opened, path: bytes, *, files: bool) -> list[Entry]:
    prefix = children_prefix(path)
    span = Span((opened.root,), prefix + b"\x01", prefix[:-1] + b"\x01")
    wanted: Callable[[Root], bool] | None = None if files else _may_hold_folders
    found = (entry for _, entry in opened.reader.read(span, wanted=wanted))
    return [entry for entry in found if files or entry.kind is Kind.DIRECTORY]


def _may_hold_folders(node: Root) -> bool:
    return node.entries > node.files


def _sum(opened: Opened, path: bytes, entry: Entry) -> Sum:
    if entry.kind is Kind.DIRECTORY:
        return opened.sum_below(path)
    is_file = entry.kind is Kind.FILE
    return Sum(1, int(is_file), entry.size)


def _row(path: bytes, entry: Entry, total: Sum, *, branch: str) -> dict[str, Any]:
    name = text_of(entry.name) or "/"
    is_folder = entry.kind is Kind.DIRECTORY
    return {
        "path": "/" + text_of(path),
        "kind": entry.kind.name.lower(),
        "size_bytes": total.bytes if is_folder or total.files else None,
        "files": total.files if is_folder else None,
        "entries": total.entries if is_folder else None,
        "modified_at": time_of(entry.mtime_ns),
        "name": branch + name + ("/" if is_folder and entry.name else ""),
    }
