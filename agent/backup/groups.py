"""Know the further names of a file that was met under its first one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.backup.assemble import Draft
from agent.backup.beneath import stat_of
from agent.backup.walk import MARK_BYTES, Row, line_of


@dataclass(slots=True)
class Group:
    """A file with several names: its first one, its mark then, and how many are to come."""

    path: bytes
    mark: bytes
    draft: Draft
    left: int


class Groups:
    """The files of which not all names were met. `top` is the directory that counts as "/"."""

    def __init__(self, top: bytes = b"/") -> None:
        self._top = top
        self._of: dict[tuple[int, int], Group] = {}

    def find(self, fd: int, row: Row) -> Group | None:
        """The group that a row of the directory `fd` is one more name of; None where there is
        none.

        The number alone does not say so: another file may have got it since, and some file
        systems give it to several. Two names of one file say the same when both are asked.
        """
        name, stat, line = row
        group = self._of.get((stat.st_dev, stat.st_ino))
        if group is None or group.draft.mode != stat.st_mode:
            return None
        if group.mark == line[-MARK_BYTES:]:
            return group
        try:
            first = stat_of(self._top, group.path)
            here = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        return group if line_of(b"", first) == line_of(b"", here) else None

    def begin(self, path: bytes, row: Row, draft: Draft) -> None:
        """A row is the first name of a file; a group of the same number ends."""
        _, stat, line = row
        group = Group(path, line[-MARK_BYTES:], draft, stat.st_nlink - 1)
        self._of[stat.st_dev, stat.st_ino] = group

    def met(self, group: Group, stat: os.stat_result) -> None:
        """One more name was met; with the last one the group ends."""
        group.left -= 1
        if not group.left:
            del self._of[stat.st_dev, stat.st_ino]

    def left(self) -> dict[tuple[int, int], int]:
        """Device and inode of those that are not complete, and how many names are missing."""
        return {identity: group.left for identity, group in self._of.items()}
