"""Put names to the numbers of owners, once each."""

from __future__ import annotations

import grp
import pwd

from protocol.vault.entry import Owner


class Owners:
    """A cache from (uid, gid) to `Owner`; names are empty where the system knows none."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Owner] = {}

    def of(self, uid: int, gid: int) -> Owner:
        """The owner with its names."""
        owner = self._known.get((uid, gid))
        if owner is None:
            try:
                user = pwd.getpwuid(uid).pw_name
            except KeyError:
                user = ""
            try:
                group = grp.getgrgid(gid).gr_name
            except KeyError:
                group = ""
            owner = self._known[uid, gid] = Owner(uid, gid, user, group)
        return owner
