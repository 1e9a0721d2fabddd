"""Parse and build reparse points: symbolic links, junctions, and what drivers keep there.

A symbolic link and a junction become a link of the tree. Its target is the name that
people see, as WTF-8 with backslashes as they are; the extension `windows.reparse` keeps
the bytes whole wherever that target alone would not make them again.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from agent.metadata.windows import names
from agent.metadata.windows.fields import Fields
from protocol.errors import InvalidError

EXTENSION: Final = "windows.reparse"
MAX_BYTES: Final = 16 * 1024
SYMLINK: Final = 0xA000_000C
MOUNT_POINT: Final = 0xA000_0003
WSL_SYMLINK: Final = 0xA000_001D
RELATIVE: Final = 1

_HEADER = struct.Struct("<IHH")
_NAMES = struct.Struct("<HHHH")
_FLAGS = struct.Struct("<I")
_NATIVE: Final = b"\\??\\"
_CLOUD: Final = 0x9000_001A
_CLOUD_NUMBERS: Final = 0xF000  # sixteen tags that differ in these bits
_READ_THROUGH: Final = {
    0x8000_0013: "its sharing of equal parts by the volume is not kept: it is restored whole",
    0x8000_0017: "its compression by the system is not kept: it is restored uncompressed",
}


class Reparse(NamedTuple):
    """A tag that says whose it is, and up to 16 KiB that its owner understands."""

    tag: int
    data: bytes
    reserved: int = 0


class Link(NamedTuple):
    """Where a symbolic link or a junction leads, as WTF-8.

    `substitute` is what Windows follows, `shown` what people see (may be empty).
    """

    substitute: bytes
    shown: bytes
    is_relative: bool = False


def parse(buffer: bytes) -> Reparse:
    """What a `REPARSE_DATA_BUFFER` holds; `InvalidError` when its length is not true."""
    fields = Fields(buffer, "reparse point")
    tag, length, reserved = fields.unpack(_HEADER, 0)
    if len(buffer) > MAX_BYTES:
        raise fields.wrong(f"is {len(buffer)} bytes long; {MAX_BYTES} is the most")
    if _HEADER.size + length != len(buffer):
        raise fields.wrong(f"names {length} bytes and holds {len(buffer) - _HEADER.size}")
    return Reparse(tag, buffer[_HEADER.size :], reserved)


def build(reparse: Reparse) -> bytes:
    """The bytes of it; `InvalidError` beyond 16 KiB."""
    if _HEADER.size + len(reparse.data) > MAX_BYTES:
        raise InvalidError(f"a reparse point cannot hold {len(reparse.data)} bytes")
    return _HEADER.pack(reparse.tag, len(reparse.data), reparse.reserved) + reparse.data


def link_of(reparse: Reparse) -> Link | None:
    """Where a symbolic link or a junction leads; `None` for all else; `InvalidError`."""
    if reparse.tag not in (SYMLINK, MOUNT_POINT):
        return None
    fields = Fields(reparse.data, "link of Windows")
    first, first_bytes, second, second_bytes = fields.unpack(_NAMES, 0)
    start = _NAMES.size
    flags = 0
    if reparse.tag == SYMLINK:
        (flags,) = fields.unpack(_FLAGS, start)
        start += _FLAGS.size
    substitute = names.from_units(fields.piece(start + first, first_bytes))
    shown = names.from_units(fields.piece(start + second, second_bytes))
    if not substitute or b"\0" in substitute + shown:
        raise fields.wrong("leads nowhere, or has a NUL in its names")
    return Link(substitute, shown, is_relative=bool(flags & RELATIVE))


def symlink(link: Link) -> Reparse:
    """A symbolic link as `mklink` writes it; `InvalidError`.

    >>> link_of(symlink(Link(b"..\\\\a", b"..\\\\a", is_relative=True))).substitute
    b'..\\\\a'
    """
    first, second = names.to_units(link.substitute), names.to_units(link.shown)
    head = _names(len(second), len(first), 0, len(second))
    return Reparse(SYMLINK, head + _FLAGS.pack(link.is_relative) + second + first)


def junction(link: Link) -> Reparse:
    """A junction as `mklink /J` writes it: each name ends with a NUL; `InvalidError`."""
    first, second = names.to_units(link.substitute), names.to_units(link.shown)
    head = _names(0, len(first), len(first) + 2, len(second))
    return Reparse(MOUNT_POINT, head + first + b"\0\0" + second + b"\0\0")


def target_of(reparse: Reparse) -> bytes | None:
    """The target of the link that an entry becomes; `None` when it becomes none.

    >>> target_of(junction(Link(b"\\\\??\\\\C:\\\\Users", b"")))
    b'C:\\\\Users'
    """
    if reparse.tag == WSL_SYMLINK:
        version, target = reparse.data[:4], reparse.data[4:]
        if version != b"\2\0\0\0" or not target or b"\0" in target:
            raise InvalidError("the link of WSL has an unknown version, or leads nowhere")
        return target
    link = link_of(reparse)
    if link is None:
        return None
    return link.shown or link.substitute.removeprefix(_NATIVE) or link.substitute


def from_target(target: bytes) -> Reparse:
    """The symbolic link that a target alone makes: relative unless it names a drive or a
    share; `InvalidError`."""
    if target[:2] == b"\\\\":
        return symlink(Link(b"\\??\\UNC" + target[1:], target))
    if target[1:3] == b":\\":
        return symlink(Link(_NATIVE + target, target))
    return symlink(Link(target, target, is_relative=True))


def needs_extension(buffer: bytes) -> bool:
    """Whether the bytes are to be kept beside the entry; `InvalidError`."""
    target = target_of(parse(buffer))
    return target is None or build(from_target(target)) != buffer


def reason_dropped(tag: int) -> str | None:
    """Why a reparse point is not kept; `None` when it is.

    What a driver has put under the content (compression, a cloud) makes no sense without
    that driver's other data; the content is read through it where it is here at all.
    """
    if tag & ~_CLOUD_NUMBERS == _CLOUD:
        return "its place in a cloud is not kept: only the provider's program can give it one"
    return _READ_THROUGH.get(tag)


def _names(*fields: int) -> bytes:
    if max(fields) > 0xFFFF:
        raise InvalidError("the names of the link are too long")
    return _NAMES.pack(*fields)
