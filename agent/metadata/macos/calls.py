"""Ask macOS, through its C library, for what Python does not ask it for.

Everything that decides is in the modules beside this one; here are only the calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from agent.metadata.extras import Extras
from agent.metadata.macos import acl, attributes, flags, fork, moment
from agent.metadata.macos.attributes import RESOURCE_FORK
from agent.metadata.named import NO_STREAMS, Fill, Listing, Named, Write
from agent.metadata.unsettable import MACOS
from protocol.errors import InvalidError
from protocol.vault.entry import Entry

_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | 0x20_0000  # O_SYMLINK
_EXTENDED: Final = 0x100  # ACL_TYPE_EXTENDED
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTSUP, errno.EPERM, errno.EACCES, 93})  # ENOATTR
_FILE: Final = 8
_OPENED: Final = frozenset({4, 8, 10})
"""Directories, files and symbolic links (`st_mode >> 12`): opening others does something."""


class MacOS:
    """Asks and tells macOS. `library` is its C library."""

    name: Final = MACOS

    def __init__(self, library: Any = None) -> None:
        self._c = library if library is not None else _library()

    def is_away(self, found: os.stat_result) -> bool:
        """Whether it is marked as dataless."""
        return flags.is_away(_st_flags(found))

    def of_open(self, fd: int) -> Extras:
        """Attributes, access control list, flags, and the time of creation."""
        chosen = attributes.choose(self._xattrs(fd))
        left_out = list(chosen.left_out)
        extensions = flags.extension_of(_st_flags(os.fstat(fd)))
        try:
            listed = acl.kept(self._acl(fd))
        except InvalidError as error:
            left_out.append(str(error))
        else:
            if listed:
                extensions = ((acl.NAME, listed), *extensions)
        try:
            born_ns = self._born(fd)
        except InvalidError as error:
            born_ns = None
            left_out.append(str(error))
        return Extras(chosen.xattrs, extensions, born_ns, tuple(left_out))

    def at(self, directory_fd: int, name: bytes) -> Extras:
        """Of pipes, sockets and devices only the flags: they are not opened."""
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if found.st_mode >> 12 not in _OPENED:
            return Extras(extensions=flags.extension_of(_st_flags(found)))
        fd = os.open(name, _OPEN, dir_fd=directory_fd)
        try:
            return self.of_open(fd)
        finally:
            os.close(fd)

    def give(self, fd: int, entry: Entry) -> Iterator[str]:
        """Attributes first: whoever may not write any more cannot set them."""
        for name, value in entry.xattrs:
            if attributes.is_kept(name):
                shown = name.decode(errors="backslashreplace")
                call = self._c.fsetxattr(fd, name, value, len(value), 0, 0)
                yield from self._told(f"attribute {shown}", call)
        listed = dict(entry.extensions).get(acl.NAME)
        if listed is not None:
            try:
                found = acl.parse(listed)
            except InvalidError as error:
                yield str(error)
            else:
                if found is not None:
                    yield from self._give_acl(fd, acl.pack(found))
        if entry.born_ns is not None:
            timespec = moment.timespec_of(entry.born_ns)
            call = self._c.fsetattrlist(fd, moment.wanted(), timespec, len(timespec), 0)
            yield from self._told("time of creation", call)

    def give_at(self, directory_fd: int, name: bytes, entry: Entry) -> Iterator[str]:
        """Of symbolic links alone: the others have nothing that is given here."""
        if entry.mode >> 12 not in _OPENED:
            return
        fd = os.open(name, _OPEN, dir_fd=directory_fd)
        try:
            yield from self.give(fd, entry)
        finally:
            os.close(fd)

    def has_flags(self, entry: Entry) -> bool:
        """Those that macOS gave them."""
        return flags.flags_of(entry) != 0

    def give_flags(self, fd: int, entry: Entry) -> None:
        """Others that it has stay."""
        self._change_flags(fd, flags.flags_of(entry))

    def release(self, fd: int) -> None:
        """Immutable and append only, of the owner and of the system."""
        found = _st_flags(os.fstat(fd))
        if found & flags.HOLDING:
            self._change_flags(fd, found & ~flags.HOLDING)

    def streams(self, directory_fd: int, name: bytes, found: os.stat_result) -> Listing | None:
        """A resource fork that is too large for an attribute."""
        if found.st_mode >> 12 != _FILE:
            return NO_STREAMS
        with _opened(directory_fd, name) as fd:
            size = self._fork_bytes(fd)
        large = attributes.is_stream(RESOURCE_FORK, size)
        return Listing((Named(RESOURCE_FORK, size),)) if large else NO_STREAMS

    def takes_stream(self, stream: bytes) -> bool:
        """The resource fork alone."""
        return stream == RESOURCE_FORK

    @contextmanager
    def read_stream(self, directory_fd: int, name: bytes, stream: bytes) -> Iterator[Fill]:
        """The resource fork."""
        _check_fork(stream)
        with _opened(directory_fd, name) as fd, fork.reading(self._c, fd) as fill:
            yield fill

    @contextmanager
    def write_stream(self, directory_fd: int, name: bytes, stream: bytes) -> Iterator[Write]:
        """The resource fork, in place of one that is there."""
        self.remove_stream(directory_fd, name, stream)
        with _opened(directory_fd, name) as fd, fork.writing(self._c, fd) as write:
            yield write

    def remove_stream(self, directory_fd: int, name: bytes, stream: bytes) -> None:
        """The resource fork, where there is one."""
        _check_fork(stream)
        with _opened(directory_fd, name) as fd:
            if self._c.fremovexattr(fd, stream, 0) and ctypes.get_errno() not in _ABSENT:
                raise _error()

    def _change_flags(self, fd: int, wanted: int) -> None:
        found = _st_flags(os.fstat(fd))
        new = flags.settable(found, wanted, is_root=os.geteuid() == 0)
        if new != found and self._c.fchflags(fd, new):
            raise _error()

    def _xattrs(self, fd: int) -> Iterator[tuple[bytes, bytes]]:
        names = self._filled(lambda room, size: self._c.flistxattr(fd, room, size, 0))
        for name in attributes.names_of(names or b""):
            if not attributes.is_kept(name):
                continue
            if name == RESOURCE_FORK and attributes.is_stream(name, self._fork_bytes(fd)):
                continue
            value = self._value(fd, name)
            if value is not None:
                yield name, value

    def _fork_bytes(self, fd: int) -> int:
        """The length of a resource fork, 0 where there is none."""
        size = int(self._c.fgetxattr(fd, RESOURCE_FORK, None, 0, 0, 0))
        if size < 0 and ctypes.get_errno() not in _ABSENT:
            raise _error()
        return max(size, 0)

    def _value(self, fd: int, name: bytes) -> bytes | None:
        return self._filled(lambda room, size: self._c.fgetxattr(fd, name, room, size, 0, 0))

    def _filled(self, call: Any) -> bytes | None:
        """What a call gives that first tells how much room it needs; None where none is."""
        size = call(None, 0)
        if size > 0:
            room = ctypes.create_string_buffer(size)
            size = call(room, size)
            if size >= 0:
                return room.raw[:size]
        if size < 0 and ctypes.get_errno() not in _ABSENT:
            raise _error()
        return b"" if size == 0 else None

    def _acl(self, fd: int) -> bytes:
        handle = self._c.acl_get_fd_np(fd, _EXTENDED)
        if not handle:
            if ctypes.get_errno() not in _ABSENT:
                raise _error()
            return acl.pack(acl.Acl(()))
        try:
            size = self._c.acl_size(handle)
            room = ctypes.create_string_buffer(max(size, 1))
            size = self._c.acl_copy_ext(room, handle, size)
            if size < 0:
                raise _error()
            return room.raw[:size]
        finally:
            self._c.acl_free(handle)

    def _give_acl(self, fd: int, listed: bytes) -> Iterator[str]:
        handle = self._c.acl_copy_int(listed)
        if not handle:
            yield from self._told("access control list", -1)
            return
        try:
            call = self._c.acl_set_fd_np(fd, handle, _EXTENDED)
            yield from self._told("access control list", call)
        finally:
            self._c.acl_free(handle)

    def _born(self, fd: int) -> int | None:
        room = ctypes.create_string_buffer(moment.ANSWER_BYTES)
        if self._c.fgetattrlist(fd, moment.wanted(), room, len(room), 0):
            return None
        return moment.born_of(room.raw)

    @staticmethod
    def _told(what: str, result: int) -> Iterator[str]:
        if result:
            yield f"{what}: {os.strerror(ctypes.get_errno()).lower()}"


@contextmanager
def _opened(directory_fd: int, name: bytes) -> Iterator[int]:
    """Something in a directory, or the directory itself, which the caller keeps."""
    if not name:
        yield directory_fd
        return
    fd = os.open(name, _OPEN, dir_fd=directory_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _check_fork(stream: bytes) -> None:
    if stream != RESOURCE_FORK:
        raise InvalidError(f"macOS has no stream {stream[:64]!r}")


def _st_flags(found: os.stat_result) -> int:
    return int(getattr(found, "st_flags", 0))


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _library() -> Any:
    """The C library, told which of its functions take and give more than an `int`."""
    library = ctypes.CDLL(None, use_errno=True)
    text, room, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
    size, bits = ctypes.c_size_t, ctypes.c_uint32
    for name, gives, takes in (
        ("flistxattr", ctypes.c_ssize_t, (number, room, size, number)),
        ("fgetxattr", ctypes.c_ssize_t, (number, text, room, size, bits, number)),
        ("fsetxattr", number, (number, text, text, size, bits, number)),
        ("fremovexattr", number, (number, text, number)),
        ("fgetattrlist", number, (number, text, room, size, ctypes.c_ulong)),
        ("fsetattrlist", number, (number, text, text, size, ctypes.c_uint32)),
        ("fchflags", number, (number, bits)),
        ("acl_get_fd_np", room, (number, number)),
        ("acl_size", ctypes.c_ssize_t, (room,)),
        ("acl_copy_ext", ctypes.c_ssize_t, (room, room, ctypes.c_ssize_t)),
        ("acl_copy_int", room, (text,)),
        ("acl_set_fd_np", number, (number, room, number)),
        ("acl_free", number, (room,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = gives, takes
    return library
