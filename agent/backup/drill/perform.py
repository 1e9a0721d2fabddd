"""Restore some files of a restore point for real, compare them, and take them away again.

What is restored goes through the very code of a restore. Then each file is compared with
what the vault holds, read a second time and on its own way, with its recorded size, time
and mode, and with the live file where that looks unchanged. So a drill finds what a vault
has lost, what a restore does wrong, and files that change without a change of their time.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.backup.drill.pick import Picked, Picks, pick, some_entries
from agent.backup.drill.prove import Prover, file_digest, looks_unchanged
from agent.backup.far_time import mtime_of
from agent.backup.restore.flow import Flow
from agent.backup.restore.write import Restore
from agent.backup.send.control import Control
from agent.backup.send.vault import DATA_LOSS, Vault
from agent.backup.skipped import reason_of, shown
from agent.host import clock
from protocol.errors import Code, SteadError
from protocol.vault.entry import Entry, Kind, as_file
from protocol.vault.keys import VaultSecret
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Root
from protocol.vault.path import tree_key
from protocol.vault.reader import Piece, Span, TreeReader

FILES = 60
BYTES = 256 * 1024 * 1024
SAMPLED_FILES = 6
SAMPLED_BYTES = 2 * 1024 * 1024
LARGEST_SAMPLED = 16 * 1024 * 1024
SAMPLED_WAYS = 4
_KEPT_FREE = 64 * 1024 * 1024
_LEAF_ENTRIES = 64
_PATIENCE_S = 600.0


@dataclass(slots=True)
class Proved:
    """What a drill or a sample has found. `wrong` are paths, each with the reason."""

    files: int = 0
    size: int = 0
    compared: int = 0
    wrong: list[tuple[bytes, str]] = field(default_factory=list)
    took_s: float = 0.0

    def as_json(self, most: int = 100) -> list[dict[str, str]]:
        """The first of what is wrong, for a report."""
        return [{"path": shown(path), "reason": reason} for path, reason in self.wrong[:most]]


class Drill:
    """One drill. `top` is the directory that counts as "/"; `scratch` is made and removed.

    `control` says when to wait.
    """

    def __init__(
        self,
        root: Root,
        *,
        vault: Vault,
        secret: VaultSecret,
        scratch: Path,
        seed: random.Random,
        progress: Callable[[Mapping[str, Any]], None],
        top: bytes = b"/",
        patience_s: float = _PATIENCE_S,
        control: Control | None = None,
    ) -> None:
        self._control = control or Control()
        self._root = root
        self._vault = vault
        self._secret = secret
        self._scratch = scratch
        self._seed = seed
        self._progress = progress
        self._top = top.rstrip(b"/") + b"/"
        self._patience_s = patience_s
        self._prover = Prover(vault, secret, seed, patience_s=patience_s, hold=self._hold)

    def _hold(self) -> None:
        self._control.hold(lambda: None)

    def run(self, *, count: int, max_bytes: int, canaries: Sequence[bytes]) -> Proved:
        """Drill. Raises STORE_FULL when the disk has no room for it, PRECONDITION when there is
        no file to prove anything with, and what the vault raises but for loss and damage, which
        are in the answer.
        """
        proved = Proved()
        began, paused_s = clock.monotonic(), self._control.paused_s
        try:
            picks = pick(
                self._prover.reader,
                self._root,
                count=count,
                max_bytes=max_bytes,
                canaries=canaries,
                seed=self._seed,
            )
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            proved.wrong.append((b"", f"the tree cannot be read: {error}"))
            return proved
        if not picks.files and not picks.absent:
            raise SteadError(
                "the restore point has no file, so nothing was proved: look at the paths of the "
                "backup set with `stead backup plan`",
                code=Code.PRECONDITION,
            )
        proved.wrong += [
            (path, "the restore point has not got this canary") for path in picks.absent
        ]
        self._progress({"phase": "restore", "files": len(picks.files), "bytes": picks.size})
        _remove(self._scratch)
        self._scratch.mkdir(mode=0o700, parents=True)
        try:
            self._restore(picks, proved)
            # What a restore takes is asked, and not how long somebody wanted it to wait.
            waited_s = self._control.paused_s - paused_s
            proved.took_s = clock.monotonic() - began - waited_s
            self._progress({"phase": "compare", "files": proved.files, "bytes": proved.size})
            self._compare(picks.files, proved)
        finally:
            _remove(self._scratch)
        return proved

    def _restore(self, picks: Picks, proved: Proved) -> None:
        free = shutil.disk_usage(self._scratch).free
        if free < picks.size + _KEPT_FREE:
            raise SteadError(
                f"a drill of {picks.size} bytes needs room in {self._scratch}, and {free} bytes "
                "are free; make room, or drill fewer files",
                code=Code.STORE_FULL,
            )
        restore = Restore(
            list(_spans(self._prover.reader, self._root, picks.files)),
            strip=b"",
            target=bytes(self._scratch),
            overwrite=False,
            vault=self._vault,
            secret=self._secret,
            seed=self._seed,
            progress=self._progress,
            patience_s=self._patience_s,
            flow=Flow(self._control),
        )
        done = restore.run()
        proved.files, proved.size = done.files, done.bytes
        proved.wrong += [(one.path, one.reason) for one in done.failed.kept]

    def _compare(self, files: Sequence[Picked], proved: Proved) -> None:
        failed = {path for path, _ in proved.wrong}
        for one in files:
            if one.path in failed:
                continue
            self._hold()
            restored = bytes(self._scratch) + b"/" + one.path
            reason = self._prover.problem(one.entry, restored) or _noted(one.entry, restored)
            if reason is not None:
                proved.wrong.append((one.path, f"the restored file: {reason}"))
                continue
            self._compare_live(one, proved)

    def _compare_live(self, one: Picked, proved: Proved) -> None:
        compare_live(self._prover, one, self._top + one.path, proved)


def compare_live(prover: Prover, one: Picked, live: bytes, proved: Proved) -> None:
    """Compare the live file, when it has the size and the time that were noted."""
    if not looks_unchanged(one.entry, live):
        return
    reason = prover.problem(one.entry, live, is_live=True)
    if not looks_unchanged(one.entry, live):
        return
    proved.compared += 1
    if reason is not None:
        proved.wrong.append(
            (one.path, f"the live file, whose time and size are unchanged: {reason}")
        )


def decode_sample(
    root: Root,
    *,
    vault: Vault,
    secret: VaultSecret,
    seed: random.Random,
    top: bytes = b"/",
    patience_s: float = _PATIENCE_S,
) -> Proved:
    """Decode a few files of a restore point that was just made, and compare them.

    It costs a few calls, whatever the size of the tree; what was lost on the way to the
    vault or in it is an answer, not an error.
    """
    began = clock.monotonic()
    prover = Prover(vault, secret, seed, patience_s=patience_s)
    proved = Proved()
    try:
        found = list(some_entries(prover.reader, root, SAMPLED_WAYS, seed))
    except SteadError as error:
        if error.code not in DATA_LOSS:
            raise
        proved.wrong.append((b"", f"the tree cannot be read: {error}"))
        found = []
    files = [
        Picked(parent, entry)
        for parent, entry in found
        if entry.mode >> 12 == Kind.FILE
        and not entry.changed_while_read
        and _fetched(entry) <= LARGEST_SAMPLED
    ]
    seed.shuffle(files)
    chosen = list(_within(files, SAMPLED_FILES, SAMPLED_BYTES))
    prover.fetch([one.entry for one in chosen])
    slash = top.rstrip(b"/") + b"/"
    for one in chosen:
        proved.files += 1
        proved.size += one.entry.size
        try:
            held = prover.digest(one.entry)
            for stream in one.entry.streams:
                prover.digest(as_file(stream))
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            proved.wrong.append((one.path, str(error)))
            continue
        _compare_sampled(one, slash + one.path, held, proved)
    proved.took_s = clock.monotonic() - began
    return proved


def _within(files: Sequence[Picked], count: int, size: int) -> Iterator[Picked]:
    """The first few files that fit, by what has to be fetched for them; one at any rate."""
    left = count
    for one in files:
        if left and _fetched(one.entry) <= size:
            left, size = left - 1, size - _fetched(one.entry)
            yield one
    if left == count and files:
        yield min(files, key=lambda one: _fetched(one.entry))


def _fetched(entry: Entry) -> int:
    """How many bytes have to be fetched to read a file with its named streams."""
    fetched = 0
    for content in (entry, *map(as_file, entry.streams)):
        references = (extent.reference for extent in content.extents)
        # Deeper, they are lists, and what those name is fetched as well.
        fetched += content.size if content.depth else sum(one.length for one in references if one)
    return fetched


def _compare_sampled(one: Picked, live: bytes, held: bytes, proved: Proved) -> None:
    if not looks_unchanged(one.entry, live):
        return
    try:
        found = file_digest(live)
    except OSError:
        return
    if found is None or not looks_unchanged(one.entry, live):
        return
    proved.compared += 1
    if found != held:
        proved.wrong.append((one.path, "the live file holds other bytes at the same time and size"))


def _spans(reader: TreeReader, root: Root, files: Sequence[Picked]) -> Iterator[Span]:
    """The files with the directories above them, written out as pieces of leaves."""
    wanted: dict[bytes, tuple[bytes, Entry]] = {}
    for one in files:
        wanted[tree_key(one.path)] = (one.parent, one.entry)
        parent = one.parent
        while parent and (key := tree_key(parent)) not in wanted:
            above = parent.rpartition(b"/")[0]
            wanted[key] = (above, reader.get(root, parent))
            parent = above
    ordered = [wanted[key] for key in sorted(wanted)]
    for start in range(0, len(ordered), _LEAF_ENTRIES):
        writer = LeafWriter()
        for parent, entry in ordered[start : start + _LEAF_ENTRIES]:
            writer.add(parent, entry)
        plain, children = writer.finish()
        yield Span((Piece(plain, tuple(children)),), b"", None)


def _noted(entry: Entry, path: bytes) -> str | None:
    """What of a restored file's attributes is not as it was noted; None when all is."""
    found = os.lstat(path)
    if found.st_mtime_ns != mtime_of(entry):
        return "its time is not the one that was backed up"
    bits = 0o7777 if os.geteuid() == 0 else 0o777
    if (found.st_mode ^ entry.mode) & bits:
        return f"its mode is {found.st_mode & bits:o}, not {entry.mode & bits:o}"
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != entry.owner[:2]:
        return "its owner is not the one that was backed up"
    return None


def _remove(folder: Path) -> None:
    """Remove a folder that this program has made, whatever the modes of what is in it."""
    if not folder.exists():
        return
    for path, _names, _files in os.walk(folder):
        Path(path).chmod(0o700)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise SteadError(
            f"{folder} cannot be removed: {reason_of(error)}; remove it by hand",
            code=Code.PRECONDITION,
        ) from error
