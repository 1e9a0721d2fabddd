"""Open the folders that a restore fills, one after the other, and make the new ones.

A new folder is made when something comes into it, and filled under a temporary name; see
`fresh`. What stays empty is made at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from agent.backup.beneath import Beneath
from agent.backup.restore.durable import Written
from agent.backup.restore.fresh import UNFINISHED, FreshFolder, Refuse
from agent.backup.restore.leftover import remove_leftovers, temporary_names
from agent.backup.skipped import SkippedList, reason_of


class Folders:
    """The one that is open. `fresh` is set while it is filled under a temporary name.

    `release` makes an open folder one in which names can be changed. `refuse` is told of
    what was in a fresh folder and could not be moved to where it belongs.
    """

    def __init__(
        self,
        beneath: Beneath,
        warnings: SkippedList,
        refuse: Refuse,
        release: Callable[[int], None],
        *,
        written: Written | None,
        overwrite: bool,
    ) -> None:
        self.names: Iterator[bytes] = temporary_names()
        self.fresh: FreshFolder | None = None
        self.parent: bytes | None = None
        # New ones whose name somebody else took first, and which were left as they are.
        self.taken: set[bytes] = set()
        # Set once entries were lost: among them may be the folders of what comes.
        self.makes_parents = False
        self._beneath = beneath
        self._warnings = warnings
        self._refuse = refuse
        self._release = release
        self._written = written
        self._overwrite = overwrite
        self._fd = -1
        self._refused: OSError | None = None
        # New ones in which nothing is yet: made here, and not made so far.
        self._made: set[bytes] = set()
        self._later: set[bytes] = set()

    def make(self, path: bytes, name: bytes, fd: int) -> None:
        """Make a folder in the open one, at the latest by `make_rest`. Raises `OSError`."""
        if self.fresh is not None:
            self._later.add(path)
        else:
            os.mkdir(name, UNFINISHED, dir_fd=fd)
            self._made.add(path)

    def enter(self, parent: bytes) -> int:
        """A descriptor of a folder, which stays ours. Raises `OSError`."""
        if parent != self.parent:
            self.leave()
            self.parent = parent
            try:
                self._fd = self._open(parent)
                if self._written is not None:
                    self._written.note(self._fd)
            except OSError as error:
                self._refused = error
        if self._refused is not None:
            raise OSError(
                self._refused.errno, f"its folder cannot be used: {reason_of(self._refused)}"
            )
        return self._fd

    def room_for(self, size: int) -> int:
        """The open folder again; not fresh any more when it has no room for so many bytes.

        Raises `OSError`.
        """
        return self._fd if self.fresh is None or self.fresh.takes(size) else self._settle()

    def name_it(self) -> None:
        """Let what was put into the open folder be where it belongs; more may come."""
        if self.fresh is not None:
            # What could not get there was told, and whatever else comes will be.
            with suppress(OSError):
                self._settle()

    def leave(self) -> None:
        """Close what is open, under its own name; what could not get there was told."""
        self.name_it()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.parent = self._refused = None

    def open_other(self, path: bytes) -> int:
        """A descriptor for the caller of this folder or one that was left. Raises `OSError`."""
        return os.dup(self._fd) if path == self.parent else self._beneath.open(path)

    def forget(self, path: bytes) -> None:
        """A folder that was new has another in its place."""
        self._made.discard(path)
        self._later.discard(path)

    def make_rest(self, failed: Callable[[bytes, OSError], None]) -> None:
        """Make the new folders that nothing came into; `failed` is told which cannot be."""
        self.leave()
        for path in sorted(self._later):
            above, _, name = path.rpartition(b"/")
            try:
                fd = self._beneath.open(above)
                try:
                    os.mkdir(name, UNFINISHED, dir_fd=fd)
                finally:
                    os.close(fd)
            except OSError as error:
                failed(path, error)
        self._later.clear()

    def _open(self, parent: bytes) -> int:
        if parent in self._made or parent in self._later:
            with suppress(FileNotFoundError):
                return self._begin(parent)
        try:
            fd = self._beneath.open(parent)
        except FileNotFoundError:
            if not self.makes_parents:
                raise
            self._warnings.add(parent, "what was known of this folder is lost")
            fd = self._beneath.make(parent)
        try:
            if parent:
                self._release(fd)
            remove_leftovers(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _begin(self, parent: bytes) -> int:
        above, _, name = parent.rpartition(b"/")
        replaces = parent in self._made
        folder = self._beneath.open(above)
        self.fresh = FreshFolder(folder, name, next(self.names), replaces=replaces)
        self.forget(parent)
        return self.fresh.fd

    def _settle(self) -> int:
        fresh, parent = self.fresh, self.parent
        assert fresh is not None
        assert parent is not None
        self.fresh, self._fd = None, -1
        own = fresh.fd
        try:
            self._fd = fresh.settle(
                lambda: self._beneath.open(parent), self._refuse, overwrite=self._overwrite
            )
        except OSError as error:
            self._refused = error
            raise
        finally:
            if self._fd != own and not fresh.replaces:
                self.taken.add(parent)
        return self._fd
