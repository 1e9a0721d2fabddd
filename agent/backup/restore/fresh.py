"""Fill a new folder under a temporary name, and give it its own when it is full.

So the files in it need no temporary names of their own: they can be reached when the
folder can, and then they are whole. What is in it has to be done again when the restore
is killed before that, so it takes small files, and not too many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.backup.beneath import DIRECTORY
from agent.backup.restore.leftover import remove_shallow
from agent.backup.restore.rename import rename_to_new

UNFINISHED: Final = 0o1700
"""The mode of a directory until it gets its own, which is the last thing that it gets."""
LARGEST: Final = 1024 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024
MOST_FILES: Final = 4096
_DEFAULT_ACL: Final = "system.posix_acl_default"

Refuse = Callable[[bytes, os.stat_result, OSError], None]
"""Told of a thing that could not be moved, and is gone."""


class FreshFolder:
    """A folder on its way to its name; `fd` is the folder, for the caller to close.

    `replaces`: an empty one that the restore has made is there under that name already.
    """

    __slots__ = (
        "_above", "_bytes_left", "_files_left", "_keeps", "_name", "_temporary", "fd", "replaces",
    )  # fmt: skip

    def __init__(self, above: int, name: bytes, temporary: bytes, *, replaces: bool) -> None:
        """Make it in `above`, which is closed by `settle`, or here when this raises `OSError`."""
        self._above, self._name, self._temporary = above, name, temporary
        self.replaces = replaces
        self._bytes_left, self._files_left = MOST_BYTES, MOST_FILES
        self._keeps: bool | None = None
        try:
            os.mkdir(temporary, UNFINISHED, dir_fd=above)
            try:
                self.fd = os.open(temporary, DIRECTORY, dir_fd=above)
            except OSError:
                os.rmdir(temporary, dir_fd=above)
                raise
        except OSError:
            os.close(above)
            raise

    def takes(self, size: int) -> bool:
        """Whether something of so many bytes may still go in; counts it."""
        if size > LARGEST or size > self._bytes_left or not self._files_left:
            return False
        self._bytes_left -= size
        self._files_left -= 1
        return True

    def keeps_modes(self, file: int, mode: int) -> bool:
        """Whether files get the owner and the mode they are made with, by the first of them."""
        if self._keeps is None:
            found = os.fstat(file)
            mine = (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
            same = found.st_mode & 0o7777 == mode
            self._keeps = mine and same and _DEFAULT_ACL not in _attributes_of(self.fd)
        return self._keeps

    def settle(self, open_other: Callable[[], int], refuse: Refuse, *, overwrite: bool) -> int:
        """Give the folder its name; a descriptor of the folder that has it then.

        Where another has it meanwhile, what is here is moved into that one, which
        `open_other` opens. Raises `OSError` when it cannot be opened.
        """
        above = self._above
        try:
            if self.replaces:
                os.rename(self._temporary, self._name, src_dir_fd=above, dst_dir_fd=above)
            else:
                rename_to_new(self._temporary, self._name, above)
        except OSError:
            return self._move(open_other, refuse, overwrite=overwrite)
        else:
            return self.fd
        finally:
            os.close(above)

    def _move(self, open_other: Callable[[], int], refuse: Refuse, *, overwrite: bool) -> int:
        into, problem = -1, None
        try:
            into = open_other()
        except OSError as error:
            problem = error
        with os.scandir(self.fd) as found:
            names = sorted(os.fsencode(one.name) for one in found)
        for name in names:
            try:
                if problem is not None:
                    raise problem
                if overwrite:
                    os.rename(name, name, src_dir_fd=self.fd, dst_dir_fd=into)
                else:
                    rename_to_new(name, name, self.fd, into)
            except OSError as error:
                stat = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
                remove_shallow(name, self.fd)
                refuse(name, stat, error)
        os.close(self.fd)
        with suppress(OSError):
            os.rmdir(self._temporary, dir_fd=self._above)
        if problem is not None:
            raise problem
        return into


def _attributes_of(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:
        return []
