"""Read what a file system knows of a thing beside its content: attributes and link targets."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Final

from protocol.errors import Code, SteadError
from protocol.vault.entry import MAX_XATTR_BYTES, MAX_XATTRS

Xattrs = tuple[tuple[bytes, bytes], ...]
SETTABLE: Final = (b"user.", b"system.posix_acl_")
"""What the names of attributes begin with that whoever owns a file may set."""

_ACCESS_ACL: Final = b"system.posix_acl_access"
_NONE = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EACCES, errno.EPERM})


class AttributeTooLargeError(SteadError):
    """An attribute that the format has no room for."""

    code = Code.LIMIT


def xattrs_of(fd: int) -> Xattrs:
    """The extended attributes of an open file, sorted by name; ACLs are among them.

    Raises `AttributeTooLargeError` and `OSError`.
    """
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NONE:
            return ()
        raise
    return _values(fd, names, follow=True) if names else ()


def xattrs_at(directory_fd: int, name: bytes) -> Xattrs:
    """The same of something that is not opened, such as a symbolic link or a pipe."""
    path = b"/proc/self/fd/%d/%s" % (directory_fd, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return _values(path, names, follow=False) if names else ()
    except OSError as error:
        if error.errno in _NONE or error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ()
        raise


def _values(where: int | bytes, names: list[str], *, follow: bool) -> Xattrs:
    found: list[tuple[bytes, bytes]] = []
    for name in names:
        try:
            value = os.getxattr(where, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NONE:
                continue
            raise
        if len(value) > MAX_XATTR_BYTES:
            raise AttributeTooLargeError(f"its attribute {name!r} is larger than 64 KiB")
        found.append((os.fsencode(name), value))
    if len(found) > MAX_XATTRS:
        raise AttributeTooLargeError(f"it has more than {MAX_XATTRS} attributes")
    return tuple(sorted(found))


def keep_only(fd: int, names: Collection[bytes]) -> None:
    """Take every other attribute and ACL off an open file that its owner may set."""
    for name, _ in xattrs_of(fd):
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
