"""Read what a file system knows of a thing beside its content: attributes and link targets."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Final, NamedTuple

from protocol.vault.entry import MAX_XATTR_BYTES, MAX_XATTRS

Xattrs = tuple[tuple[bytes, bytes], ...]
SETTABLE: Final = (b"user.", b"system.posix_acl_")
"""What the names of attributes begin with that whoever owns a file may set."""

_MOST_BYTES: Final = 3 * 1024 * 1024
"""Of all attributes of one thing, names and values: an entry has no room for more than 4 MiB."""

_ACCESS_ACL: Final = b"system.posix_acl_access"
# A file system may hold more than a program may be given, as NTFS-3G does.
_TOO_LARGE: Final = frozenset({errno.E2BIG, errno.ERANGE})
_NONE = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EACCES, errno.EPERM})


class Attributes(NamedTuple):
    """Sorted by name; `left_out` is a sentence for each that the format has no room for."""

    xattrs: Xattrs = ()
    left_out: tuple[str, ...] = ()


NO_ATTRIBUTES: Final = Attributes()


def xattrs_of(fd: int) -> Attributes:
    """The extended attributes of an open file; ACLs are among them. Raises `OSError`."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NONE:
            return NO_ATTRIBUTES
        raise
    return _values(fd, names, follow=True) if names else NO_ATTRIBUTES


def xattrs_at(directory_fd: int, name: bytes) -> Attributes:
    """The same of something that is not opened, such as a symbolic link or a pipe."""
    path = b"/proc/self/fd/%d/%s" % (directory_fd, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return _values(path, names, follow=False) if names else NO_ATTRIBUTES
    except OSError as error:
        if error.errno in _NONE or error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NO_ATTRIBUTES
        raise


def _values(where: int | bytes, names: list[str], *, follow: bool) -> Attributes:
    found: list[tuple[bytes, bytes]] = []
    left_out: list[str] = []
    room, beyond = _MOST_BYTES, 0
    # Some file systems list a name twice.
    for name in sorted(set(map(os.fsencode, names))):
        shown = name.decode(errors="backslashreplace")
        try:
            value = os.getxattr(where, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NONE:
                continue
            if error.errno not in _TOO_LARGE:
                raise
            value = None
        if value is None or len(value) > MAX_XATTR_BYTES:
            left_out.append(f"its attribute {shown} is larger than 64 KiB")
        elif len(found) == MAX_XATTRS or len(name) + len(value) > room:
            beyond += 1
        else:
            room -= len(name) + len(value)
            found.append((name, value))
    if beyond:
        left_out.append(f"{beyond} of its attributes: {MAX_XATTRS} are kept, of 3 MiB together")
    return Attributes(tuple(found), tuple(left_out))


def keep_only(fd: int, names: Collection[bytes]) -> None:
    """Take every other attribute and ACL off an open file that its owner may set."""
    for name, _ in xattrs_of(fd).xattrs:
        if name not in names and name.startswith(SETTABLE):
            os.removexattr(fd, name)


def drop_inherited(thing: int | bytes, xattrs: Xattrs) -> None:
    """Take off the ACL that something new has from its folder, unless it gets its own.

    It would let in whom the folder's default names, whatever the mode says. Raises `OSError`.
    """
    if any(name == _ACCESS_ACL for name, _ in xattrs):
        return
    try:
        os.removexattr(thing, _ACCESS_ACL)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
