"""Put files, directories and links in their places, with everything that is known of them.

Nothing is ever written outside the target: directories are opened beneath it without
following links, and names are made with O_EXCL. A file gets its name when it is whole,
so one that is cut off in the middle leaves only a leftover, which the next restore into
that directory removes. All of this is on one thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.backup.attributes import keep_only
from agent.backup.belonging import Belonging
from agent.backup.beneath import Beneath
from agent.backup.durable import Written
from agent.backup.far_time import mtime_of
from agent.backup.flagging import Flagging
from agent.backup.leftover import remove_leftovers, temporary_names
from agent.backup.rename import rename_to_new
from agent.backup.skipped import SkippedList, reason_of
from protocol.errors import Code, SteadError
from protocol.vault.chunk import Buffer
from protocol.vault.entry import Entry, Kind, Owner
from protocol.vault.path import join

CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# EINVAL: a number that this user namespace does not know.
_NO_OWNER: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOVERFLOW})
_IN_THE_WAY = "something is there already; it was left as it is"
UNFINISHED: Final = 0o1700
"""The mode of a directory until it gets its own, which is the last thing that it gets."""


class TargetFullError(SteadError):
    """There is no room left where files are restored to."""

    code = Code.STORE_FULL


@dataclass(slots=True)
class Done:
    """What was restored. `same` were there already; `warnings` are not quite as they were."""

    files: int = 0
    bytes: int = 0
    others: int = 0
    same: int = 0
    failed: SkippedList = field(default_factory=SkippedList)
    warnings: SkippedList = field(default_factory=SkippedList)


@dataclass(slots=True)
class OpenFile:
    """A file that is being written, under a temporary name."""

    parent: bytes
    entry: Entry
    fd: int
    name: bytes
    has_holes: bool = False
    is_abandoned: bool = False


class Placer:
    """Restores below `target`. Use as a context; `finish` gives directories their attributes."""

    def __init__(
        self,
        target: bytes,
        belonging: Belonging,
        *,
        overwrite: bool,
        flags: bool,
        written: Written | None = None,
    ) -> None:
        self.done = Done()
        self._written = written
        # Set once entries were lost: among them may be the folders of what comes.
        self.makes_parents = False
        self._beneath = Beneath(target)
        self._overwrite = overwrite
        self._is_root = os.geteuid() == 0
        self._parent: bytes | None = None
        self._fd = -1
        self._refused: OSError | None = None
        self._directories: list[tuple[bytes, Entry]] = []
        self._links: dict[bytes, tuple[bytes, bytes]] = {}
        self._names = temporary_names()
        self._belonging = belonging
        self._flagging = Flagging(self._beneath, self.done.warnings, wanted=flags)

    def __enter__(self) -> Placer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._beneath.close()

    def fail(self, parent: bytes, name: bytes, reason: str) -> None:
        """Note something that is not restored."""
        self.done.failed.add(join(parent, name), reason)

    def keep(self, parent: bytes, entry: Entry) -> None:
        """Count what is there already as it shall be; other names may be linked to it."""
        self.done.same += 1
        self._flagging.note(parent, entry)
        if entry.link_group is not None:
            self._links.setdefault(entry.link_group, (parent, entry.name))

    def leave(self, parent: bytes, name: bytes) -> None:
        """Note that something else is there, and stays."""
        self.fail(parent, name, _IN_THE_WAY)

    def place(self, parent: bytes, entry: Entry) -> bool:
        """Make anything but a file's content; True when it is a file still to be written."""
        try:
            fd = self._enter(parent)
            if entry.link_group is not None and self._link(parent, fd, entry):
                return False
            if entry.mode >> 12 == Kind.FILE:
                return True
            if entry.mode >> 12 == Kind.DIRECTORY:
                self._directory(parent, fd, entry)
            else:
                self._other(parent, fd, entry)
        except OSError as error:
            self._failed(parent, entry.name, error)
        return False

    def create(self, parent: bytes, entry: Entry) -> OpenFile | None:
        """Begin a file; None, and noted, when it cannot be."""
        try:
            name = next(self._names)
            file = os.open(name, CREATE, 0o600, dir_fd=self._enter(parent))
        except OSError as error:
            self._failed(parent, entry.name, error)
            return None
        return OpenFile(parent, entry, file, name)

    def write(self, file: OpenFile, pieces: Sequence[Buffer | int]) -> bool:
        """Append pieces; a number is a hole of so many bytes. False, and noted, on failure."""
        try:
            for piece in pieces:
                if isinstance(piece, int):
                    os.lseek(file.fd, piece, os.SEEK_CUR)
                    file.has_holes = True
                    continue
                written = os.write(file.fd, piece)
                while written < len(piece):
                    written += os.write(file.fd, memoryview(piece)[written:])
        except OSError as error:
            self.abandon(file, reason_of(error), error)
            return False
        return True

    def close(self, file: OpenFile) -> None:
        """Give a file its attributes and its name."""
        entry, fd = file.entry, file.fd
        try:
            if file.has_holes:
                os.ftruncate(fd, entry.size)
            self._attributes(file.parent, entry, fd)
            directory = self._enter(file.parent)
            if self._overwrite:
                self._flagging.release(directory, entry.name)
                os.rename(file.name, entry.name, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                rename_to_new(file.name, entry.name, directory)
            os.close(fd)
            file.fd = -1
        except FileExistsError:
            self.abandon(file, _IN_THE_WAY)
            return
        except OSError as error:
            self.abandon(file, reason_of(error), error)
            return
        self.done.files += 1
        self.done.bytes += entry.size
        self._flagging.note(file.parent, entry)
        if entry.changed_while_read:
            self.done.warnings.add(
                join(file.parent, entry.name), "had been changing while it was backed up"
            )
        if entry.link_group is not None:
            self._links[entry.link_group] = (file.parent, entry.name)

    def abandon(self, file: OpenFile, reason: str, error: OSError | None = None) -> None:
        """Remove a file that cannot be completed. Raises `TargetFullError` when that is why."""
        if file.is_abandoned:
            return
        file.is_abandoned = True
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
        try:
            os.unlink(file.name, dir_fd=self._enter(file.parent))
        except OSError as left:
            reason += f"; what was written of it could not be removed: {reason_of(left)}"
        if error is not None:
            self._failed(file.parent, file.entry.name, error)
        else:
            self.fail(file.parent, file.entry.name, reason)

    def finish(self) -> None:
        """Give directories their attributes, the deepest first: nothing is made in them now."""
        for parent, entry in reversed(self._directories):
            path = join(parent, entry.name)
            try:
                fd = self._beneath.open(path)
                try:
                    keep_only(fd, {name for name, _ in entry.xattrs})
                    self._attributes(parent, entry, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                self.done.warnings.add(path, f"attributes: {reason_of(error)}")
        self._directories.clear()
        self._flagging.finish()

    def _enter(self, parent: bytes) -> int:
        if parent != self._parent:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._parent, self._refused = parent, None
            try:
                self._fd = self._open_parent(parent)
                if parent:
                    self._flagging.release_open(self._fd)
                if self._written is not None:
                    self._written.note(self._fd)
                remove_leftovers(self._fd)
            except OSError as error:
                self._refused = error
        if self._refused is not None:
            raise OSError(
                self._refused.errno, f"its folder cannot be used: {reason_of(self._refused)}"
            )
        return self._fd

    def _open_parent(self, parent: bytes) -> int:
        try:
            return self._beneath.open(parent)
        except FileNotFoundError:
            if not self.makes_parents:
                raise
        self.done.warnings.add(parent, "what was known of this folder is lost")
        return self._beneath.make(parent)

    def _failed(self, parent: bytes, name: bytes, error: OSError) -> None:
        self.fail(parent, name, reason_of(error))
        if error.errno in _FULL:
            raise TargetFullError(
                f"the place to restore to is full: {self.done.files} files of "
                f"{self.done.bytes} bytes were written; make room and restore again"
            ) from error

    def _directory(self, parent: bytes, fd: int, entry: Entry) -> None:
        try:
            os.mkdir(entry.name, UNFINISHED, dir_fd=fd)
        except FileExistsError:
            found = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            if found.st_mode >> 12 != Kind.DIRECTORY:
                self.fail(parent, entry.name, _IN_THE_WAY)
                return
            if not self._overwrite and not self._is_unfinished(found, entry):
                if (found.st_mode ^ entry.mode) & 0o7777:
                    self.done.warnings.add(
                        join(parent, entry.name), "was there already; its mode was left as it is"
                    )
                return
        self._directories.append((parent, entry))
        self._flagging.note(parent, entry)
        self.done.others += 1

    def _is_unfinished(self, found: os.stat_result, entry: Entry) -> bool:
        """Whether a directory was made by a restore that was killed before it finished it."""
        owners = (os.geteuid(), (self._belonging.of(entry.owner) or (os.geteuid(), 0))[0])
        # Below a directory with this bit, every new one has it.
        return found.st_mode & 0o7777 & ~0o2000 == UNFINISHED and found.st_uid in owners

    def _other(self, parent: bytes, fd: int, entry: Entry) -> None:
        """A symbolic link, pipe, socket or device."""
        name = entry.name
        try:
            self._make(name, fd, entry)
        except FileExistsError:
            if not self._overwrite:
                self.fail(parent, name, _IN_THE_WAY)
                return
            name = next(self._names)
            self._make(name, fd, entry)
        try:
            self._attributes_at(parent, entry, fd, name)
            if name != entry.name:
                os.rename(name, entry.name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            os.unlink(name, dir_fd=fd)
            raise
        self.done.others += 1
        if entry.link_group is not None:
            self._links[entry.link_group] = (parent, entry.name)

    def _make(self, name: bytes, fd: int, entry: Entry) -> None:
        if entry.mode >> 12 == Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=fd)
        else:
            os.mknod(name, entry.mode & 0o170000 | 0o600, entry.rdev, dir_fd=fd)

    def _link(self, parent: bytes, fd: int, entry: Entry) -> bool:
        """Make one more name of a file that was restored under another; False when none was."""
        assert entry.link_group is not None
        first = self._links.get(entry.link_group)
        if first is None:
            return False
        folder = self._beneath.open(first[0])
        try:
            name = entry.name
            try:
                os.link(first[1], name, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                if not self._overwrite:
                    self.fail(parent, name, _IN_THE_WAY)
                    return True
                name = next(self._names)
                os.link(first[1], name, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
                os.rename(name, entry.name, src_dir_fd=fd, dst_dir_fd=fd)
                try:
                    # Renaming one link onto another of the same file does nothing at all.
                    os.unlink(name, dir_fd=fd)
                except FileNotFoundError:
                    name = entry.name
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM):
                # The content is at hand as well: better a copy than nothing.
                self.done.warnings.add(join(parent, entry.name), f"copied: {reason_of(error)}")
                return False
            raise
        finally:
            os.close(folder)
        if entry.mode >> 12 == Kind.FILE:
            self.done.files += 1
        else:
            self.done.others += 1
        return True

    def _attributes(self, parent: bytes, entry: Entry, fd: int) -> None:
        mode = self._own(parent, entry, fd)
        # An owner may set attributes only of what its mode lets him write, so that comes last.
        for name, value in entry.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                self._warn_xattr(parent, entry.name, name, error)
        moment = mtime_of(entry)
        os.utime(fd, ns=(moment, moment))
        os.chmod(fd, mode)

    def _attributes_at(self, parent: bytes, entry: Entry, fd: int, name: bytes) -> None:
        # Whoever owns the folder may put something else in its place at any moment, so it is
        # held while its type is looked at, and changed through what holds it.
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            if os.fstat(held).st_mode >> 12 != entry.mode >> 12:
                raise OSError(errno.EEXIST, "something else was put in its place")
            if entry.mode >> 12 == Kind.SYMLINK:
                self._own(parent, entry, name, dir_fd=fd)
            else:
                through = Path(f"/proc/self/fd/{held}")
                through.chmod(self._own(parent, entry, bytes(through)))
        finally:
            os.close(held)
        for key, value in entry.xattrs:
            path = b"/proc/self/fd/%d/%s" % (fd, name)
            try:
                os.setxattr(path, key, value, follow_symlinks=False)
            except OSError as error:
                self._warn_xattr(parent, entry.name, key, error)
        moment = mtime_of(entry)
        os.utime(name, ns=(moment, moment), dir_fd=fd, follow_symlinks=False)

    def _own(
        self, parent: bytes, entry: Entry, thing: int | bytes, dir_fd: int | None = None
    ) -> int:
        """Give something its owner; the permissions that it may have then.

        What cannot get its owner must not run with the rights of the one it has.
        """
        owner = self._belonging.of(entry.owner)
        is_owned = owner is not None
        try:
            if owner is not None and dir_fd is None:
                os.chown(thing, *owner)
            elif owner is not None:
                os.chown(thing, *owner, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_OWNER:
                raise
            self._warn_owner(parent, entry.name, entry.owner, error)
            is_owned = False
        if not is_owned and entry.mode >> 12 != Kind.DIRECTORY:
            return entry.mode & 0o1777
        return entry.mode & 0o7777

    def _warn_owner(self, parent: bytes, name: bytes, owner: Owner, error: OSError) -> None:
        if self._is_root or owner.uid != os.geteuid() or owner.gid != os.getegid():
            self.done.warnings.add(
                join(parent, name), f"owner {owner.uid}:{owner.gid}: {reason_of(error)}"
            )

    def _warn_xattr(self, parent: bytes, name: bytes, key: bytes, error: OSError) -> None:
        shown = key.decode(errors="backslashreplace")
        self.done.warnings.add(join(parent, name), f"attribute {shown}: {reason_of(error)}")
