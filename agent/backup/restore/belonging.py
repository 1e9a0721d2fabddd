"""Whom restored things belong to: by name, by number, or whoever restores."""

from __future__ import annotations

import grp
import pwd
from enum import StrEnum

from protocol.errors import InvalidError
from protocol.vault.entry import Owner


class Owners(StrEnum):
    """How owners are restored."""

    NAME = "name"
    NUMBER = "number"
    NONE = "none"


def owners_of(text: str) -> Owners:
    """What an order says; nothing means by name.

    >>> owners_of("")
    <Owners.NAME: 'name'>
    """
    try:
        return Owners(text or Owners.NAME)
    except ValueError:
        raise InvalidError(
            f"owners are restored by name, number or none, not {text[:40]!r}"
        ) from None


class Belonging:
    """Turns the owner of an entry into numbers of this system, each once."""

    def __init__(self, how: Owners) -> None:
        self._how = how
        self._known: dict[Owner, tuple[int, int]] = {}

    def of(self, owner: Owner) -> tuple[int, int] | None:
        """User and group; None when owners are not restored.

        A name that this system does not know, and one that the entry does not have,
        falls back to the number.
        """
        if self._how is Owners.NONE:
            return None
        if self._how is Owners.NUMBER:
            return owner.uid, owner.gid
        found = self._known.get(owner)
        if found is None:
            found = self._known[owner] = (_user(owner), _group(owner))
        return found


def _user(owner: Owner) -> int:
    try:
        return pwd.getpwnam(owner.user).pw_uid if owner.user else owner.uid
    except (KeyError, ValueError):
        return owner.uid


def _group(owner: Owner) -> int:
    try:
        return grp.getgrnam(owner.group).gr_gid if owner.group else owner.gid
    except (KeyError, ValueError):
        return owner.gid
