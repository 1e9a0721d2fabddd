"""Put files, directories and links in their places, with everything that is known of them.

Nothing is ever written outside the target: directories are opened beneath it without
following links, and names are made with O_EXCL. A file can be reached by its path when it
is whole: it gets its name then, or the new folder that it is in does. So what is cut off
in the middle leaves only a leftover, which the next restore into that directory removes.
All of this is on one thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from agent.backup.beneath import Beneath
from agent.backup.restore.belonging import Belonging
from agent.backup.restore.direct import LEAST_BYTES, Block, DirectFile
from agent.backup.restore.durable import Written
from agent.backup.restore.endow import Endowing
from agent.backup.restore.flagging import Flagging
from agent.backup.restore.folders import Folders
from agent.backup.restore.named_write import KIND, ContentOf, NamedWriter
from agent.backup.restore.placed import Done, OpenFile, TargetFullError
from agent.backup.restore.rename import rename_to_new
from agent.backup.skipped import FULL, reason_of
from agent.metadata.attributes import keep_only
from protocol.errors import SteadError
from protocol.vault.chunk import Buffer
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = "something is there already; it was left as it is"
_MODE_LEFT = "was there already; its mode was left as it is"


class Placer:
    """Restores below `target`. Use as a context; `finish` gives directories their attributes."""

    def __init__(
        self,
        target: bytes,
        belonging: Belonging,
        *,
        overwrite: bool,
        flags: bool,
        content_of: ContentOf,
        written: Written | None = None,
    ) -> None:
        self.done = Done()
        self._beneath = Beneath(target)
        self._overwrite = overwrite
        self._directories: list[tuple[bytes, Entry]] = []
        self._links: dict[bytes, tuple[bytes, bytes]] = {}
        self._endowing = Endowing(belonging, self.done.warnings)
        self._named = NamedWriter(content_of, self.done.failed, self._endowing.no_place)
        self._flagging = Flagging(self._beneath, self.done.warnings, wanted=flags)
        self._folders = Folders(
            self._beneath,
            self.done.warnings,
            self._refuse,
            self._flagging.release_open,
            written=written,
            overwrite=overwrite,
        )
        self._block = Block()
        self._umask = 0

    def __enter__(self) -> Placer:
        # Nothing is made here without saying its mode.
        self._umask = os.umask(0)
        return self

    def __exit__(self, *_: object) -> None:
        os.umask(self._umask)
        self._folders.leave()
        self._beneath.close()

    def make_parents(self) -> None:
        """Entries were lost: among them may be the folders of what comes."""
        self._folders.makes_parents = True

    @property
    def makes_parents(self) -> bool:
        """Whether entries were lost."""
        return self._folders.makes_parents

    def rest(self) -> None:
        """What was written so far is where it belongs, for it may take long until more comes."""
        self._folders.name_it()

    def settle(self) -> None:
        """Make what is new be where it belongs: every folder, and what was put into it."""
        self._folders.make_rest(self._not_made)

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
            fd = self._folders.enter(parent)
            if entry.link_group is not None and self._link(parent, fd, entry):
                return False
            if entry.mode >> 12 == Kind.FILE:
                return True
            if entry.mode >> 12 == Kind.DIRECTORY:
                self._directory(parent, fd, entry)
            else:
                self._other(parent, self._folders.room_for(0), entry)
        except OSError as error:
            self._failed(parent, entry.name, error)
        return False

    def create(self, parent: bytes, entry: Entry) -> OpenFile | None:
        """Begin a file; None, and noted, when it cannot be."""
        try:
            file = self._create(parent, entry)
            if entry.size >= LEAST_BYTES:
                file.direct = DirectFile(file.fd, self._block)
        except OSError as error:
            self._failed(parent, entry.name, error)
            return None
        return file

    def write(self, file: OpenFile, pieces: Sequence[Buffer | int]) -> bool:
        """Append pieces; a number is a hole of so many bytes. False, and noted, on failure."""
        direct = file.direct
        try:
            for piece in pieces:
                if isinstance(piece, int):
                    if direct is None:
                        os.lseek(file.fd, piece, os.SEEK_CUR)
                    else:
                        direct.skip(piece)
                    file.has_holes = True
                    continue
                if direct is not None:
                    direct.write(piece)
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
            if file.direct is not None:
                file.direct.end()
            if file.has_holes and os.fstat(fd).st_size < entry.size:
                # A length is on the disk before what was written is. After a power cut the
                # file would be as long and as old as it shall be, and count as restored.
                os.fdatasync(fd)
                os.ftruncate(fd, entry.size)
            directory = self._folders.enter(file.parent)
            if entry.streams:
                path = join(file.parent, entry.name)
                self._named.give(path, directory, file.name, entry)
            self._endowing.open(file.parent, entry, fd, is_set=file.is_set)
            if file.name == entry.name:
                pass
            elif self._overwrite:
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
        except SteadError:
            self.abandon(file, "the restore ended before it")
            raise
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
            os.unlink(file.name, dir_fd=self._folders.enter(file.parent))
        except OSError as left:
            reason += f"; what was written of it could not be removed: {reason_of(left)}"
        if error is not None:
            self._failed(file.parent, file.entry.name, error)
        else:
            self.fail(file.parent, file.entry.name, reason)

    def give_streams(self) -> None:
        """Give directories their named streams, once all that is in them is there.

        Raises `TargetFullError`, and what is wrong with the vault but for loss and damage.
        """
        for parent, entry in self._directories:
            path = join(parent, entry.name)
            if not entry.streams or (path in self._folders.taken and not self._overwrite):
                continue
            try:
                with self._beneath.opened(path) as fd:
                    self._named.give(path, fd, b"", entry)
            except OSError as error:
                self._failed(parent, entry.name, error)

    def finish(self) -> None:
        """Give directories their attributes, the deepest first: nothing is made in them now."""
        self.settle()
        for parent, entry in reversed(self._directories):
            path = join(parent, entry.name)
            if path in self._folders.taken and not self._overwrite:
                self.done.warnings.add(path, _MODE_LEFT)
                continue
            try:
                with self._beneath.opened(path) as fd:
                    keep_only(fd, {name for name, _ in entry.xattrs})
                    self._named.keep_only(fd, entry)
                    self._endowing.open(parent, entry, fd)
            except OSError as error:
                self.done.warnings.add(path, f"attributes: {reason_of(error)}")
        self._directories.clear()
        self._flagging.finish()
        self._endowing.finish()

    def _not_made(self, path: bytes, error: OSError) -> None:
        parent, _, name = path.rpartition(b"/")
        self.fail(parent, name, reason_of(error))
        self.done.others -= 1
        self._take_back(parent, name)

    def _refuse(self, name: bytes, stat: os.stat_result, error: OSError) -> None:
        """What was made in a fresh folder is not there after all."""
        parent = self._folders.parent
        assert parent is not None
        is_taken = isinstance(error, FileExistsError)
        self.fail(parent, name, _IN_THE_WAY if is_taken else reason_of(error))
        if stat.st_mode >> 12 == Kind.FILE:
            self.done.files -= 1
            if stat.st_nlink == 1 or (parent, name) in self._links.values():
                self.done.bytes -= stat.st_size
        else:
            self.done.others -= 1
        self._take_back(parent, name)

    def _take_back(self, parent: bytes, name: bytes) -> None:
        gone = (parent, name)
        self._links = {group: one for group, one in self._links.items() if one != gone}
        self._directories = [one for one in self._directories if (one[0], one[1].name) != gone]
        self._flagging.forget(parent, name)

    def _create(self, parent: bytes, entry: Entry) -> OpenFile:
        folders = self._folders
        folders.enter(parent)
        directory = folders.room_for(entry.size)
        fresh = folders.fresh
        # A colon may lead into a file that is there: such a name is given by renaming.
        if fresh is None or b":" in entry.name:
            name = next(folders.names)
            return OpenFile(parent, entry, os.open(name, CREATE, 0o600, dir_fd=directory), name)
        mode = entry.mode & 0o7777
        if mode > 0o777 or entry.xattrs or entry.streams or not self._endowing.is_ours(entry):
            file = os.open(entry.name, CREATE, 0o600, dir_fd=directory)
            return OpenFile(parent, entry, file, entry.name)
        # Nobody else can come here before the folder has its name.
        file = os.open(entry.name, CREATE, mode, dir_fd=directory)
        return OpenFile(parent, entry, file, entry.name, fresh.keeps_modes(file, mode))

    def _failed(self, parent: bytes, name: bytes, error: OSError) -> None:
        self.fail(parent, name, reason_of(error))
        if error.errno in FULL:
            raise TargetFullError(
                f"the place to restore to is full: {self.done.files} files of "
                f"{self.done.bytes} bytes were written; make room and restore again"
            ) from error

    def _directory(self, parent: bytes, fd: int, entry: Entry) -> None:
        try:
            self._folders.make(join(parent, entry.name), entry.name, fd)
        except FileExistsError:
            found = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            if found.st_mode >> 12 != Kind.DIRECTORY:
                self.fail(parent, entry.name, _IN_THE_WAY)
                return
            if not self._overwrite and not self._endowing.is_unfinished(found, entry):
                if (found.st_mode ^ entry.mode) & 0o7777:
                    self.done.warnings.add(join(parent, entry.name), _MODE_LEFT)
                return
        self._directories.append((parent, entry))
        self._flagging.note(parent, entry)
        self.done.others += 1

    def _other(self, parent: bytes, fd: int, entry: Entry) -> None:
        """A symbolic link, pipe, socket or device."""
        name = entry.name
        try:
            self._make(name, fd, entry)
        except FileExistsError:
            if not self._overwrite:
                self.fail(parent, name, _IN_THE_WAY)
                return
            name = next(self._folders.names)
            self._make(name, fd, entry)
        if entry.streams:
            self._endowing.no_place(KIND)
        try:
            self._endowing.at(parent, entry, fd, name)
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
            if b"\0" in entry.target:
                raise OSError(errno.EINVAL, "no link can lead where it says")
            os.symlink(entry.target, name, dir_fd=fd)
        else:
            os.mknod(name, entry.mode & 0o170000 | 0o600, entry.rdev, dir_fd=fd)

    def _link(self, parent: bytes, fd: int, entry: Entry) -> bool:
        """Make one more name of a file that was restored under another; False when none was."""
        assert entry.link_group is not None
        first = self._links.get(entry.link_group)
        if first is None:
            return False
        folder = self._folders.open_other(first[0])
        try:
            name = entry.name
            try:
                os.link(first[1], name, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                if not self._overwrite:
                    self.fail(parent, name, _IN_THE_WAY)
                    return True
                name = next(self._folders.names)
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
