"""Put names to the numbers of owners, once each."""

from __future__ import annotations

import grp
import hashlib
import pwd
from collections.abc import Callable
from pathlib import Path

from protocol.vault.entry import Owner


class Owners:
    """A cache from (uid, gid) to `Owner`; names are empty where the system knows none."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Owner] = {}

    def of(self, uid: int, gid: int) -> Owner:
        """The owner with its names."""
        owner = self._known.get((uid, gid))
        if owner is None:
            user = _name(lambda: pwd.getpwuid(uid).pw_name)
            group = _name(lambda: grp.getgrgid(gid).gr_name)
            owner = self._known[uid, gid] = Owner(uid, gid, user, group)
        return owner


def _name(ask: Callable[[], str]) -> str:
    """A name; none where the system knows none, or one that is no text."""
    try:
        name = ask()
        name.encode()
    except (KeyError, UnicodeEncodeError):
        return ""
    return name


def names_hash() -> bytes:
    """Changes when the names of owners do, as far as they are in files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (Path("/etc/passwd"), Path("/etc/group")):
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            digest.update(str(error.errno).encode())
    return digest.digest()
