"""Parse and build self-relative security descriptors ([MS-DTYP] 2.4.6).

What is parsed is built again byte for byte, whatever the order of its parts; what cannot
be one is refused, so that a damaged descriptor is found when it is kept, not when it is set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.metadata.windows.fields import Fields
from protocol.errors import InvalidError

EXTENSION: Final = "windows.security"
HEADER_BYTES: Final = 20
MAX_BYTES: Final = 131_228
"""Header, two SIDs of 68 bytes, and two lists of at most 64 KiB."""
MAX_SUB_AUTHORITIES: Final = 15

DACL_PRESENT: Final = 0x0004
SACL_PRESENT: Final = 0x0010
DACL_PROTECTED: Final = 0x1000
SELF_RELATIVE: Final = 0x8000
AUDITING: Final = 0x8
"""The part (`SECURITY_INFORMATION`) that are the rules of auditing."""
_INHERITED: Final = 0x0400 | 0x0800

PLAIN_KINDS: Final = frozenset((0, 1, 2, 3, 0x11, 0x13))
"""The kinds of rule that are a mask and a SID: allow, deny, audit, alarm, label, policy."""

_HEADER = struct.Struct("<BBHIIII")
_ACL = struct.Struct("<BBHHH")
_ACE = struct.Struct("<BBH")
_MASK = struct.Struct("<I")
_SID = struct.Struct(">BBHI")
_PARTS: Final = ("owner", "group", "system list", "access list")


class Sid(NamedTuple):
    """A security identifier: who somebody is.

    >>> Sid(5, (32, 544)).text
    'S-1-5-32-544'
    """

    authority: int
    sub_authorities: tuple[int, ...]

    @property
    def text(self) -> str:
        """As people write it; authorities beyond 32 bits are hexadecimal."""
        head = f"{self.authority:#014x}" if self.authority >> 32 else str(self.authority)
        return "-".join(("S-1", head, *map(str, self.sub_authorities)))

    def to_bytes(self) -> bytes:
        """As descriptors hold it; `InvalidError` when a part does not fit."""
        count = len(self.sub_authorities)
        if count > MAX_SUB_AUTHORITIES or not 0 <= self.authority < 1 << 48:
            raise InvalidError(f"the SID {self.text} does not fit 48 bits and 15 parts")
        try:
            tail = struct.pack(f"<{count}I", *self.sub_authorities)
        except struct.error as error:
            raise InvalidError(f"the SID {self.text} has a part beyond 32 bits") from error
        return _SID.pack(1, count, self.authority >> 32, self.authority & 0xFFFF_FFFF) + tail


class Ace(NamedTuple):
    """One rule of a list. `body` is what follows its header of 4 bytes: a mask and a SID
    in the `PLAIN_KINDS`, and kept unread in the others (of objects, with conditions)."""

    kind: int
    flags: int
    body: bytes

    @property
    def mask(self) -> int:
        """What a plain rule is about."""
        return int.from_bytes(self.body[:4], "little")

    @property
    def sid(self) -> Sid:
        """Whom a plain rule is about."""
        return _sid(Fields(self.body, "rule"), 4)[0]


class Acl(NamedTuple):
    """A list of rules. `slack` is room behind the rules that belongs to the list."""

    aces: tuple[Ace, ...]
    revision: int = 2
    reserved: tuple[int, int] = (0, 0)
    slack: bytes = b""

    def to_bytes(self) -> bytes:
        """As descriptors hold it; `InvalidError` beyond 64 KiB."""
        rules = b"".join(_ACE.pack(a.kind, a.flags, 4 + len(a.body)) + a.body for a in self.aces)
        size = _ACL.size + len(rules) + len(self.slack)
        if size > 0xFFFF:
            raise InvalidError(f"a list of {size} bytes is longer than a descriptor can hold")
        first, second = self.reserved
        header = _ACL.pack(self.revision, first, size, len(self.aces), second)
        return header + rules + self.slack


class Descriptor(NamedTuple):
    """Who owns something and who may do what with it.

    A list of `None` with its flag of presence is an empty pointer: as access list it lets
    everybody do everything, unlike a list without rules. `offsets` are where the owner, the
    group, the system list and the access list begin (0 = not there), `size` the length of
    the whole, and `filler` the bytes between that belong to nothing, as (offset, bytes).
    """

    control: int
    owner: Sid | None
    group: Sid | None
    sacl: Acl | None
    dacl: Acl | None
    offsets: tuple[int, int, int, int]
    size: int
    resource: int = 0
    filler: tuple[tuple[int, bytes], ...] = ()

    @property
    def parts(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The bytes of each part, in the order of `offsets`."""
        owner, group, sacl, dacl = (
            part.to_bytes() if part is not None else b""
            for part in (self.owner, self.group, self.sacl, self.dacl)
        )
        return owner, group, sacl, dacl


def laid_out(
    control: int,
    owner: Sid | None = None,
    group: Sid | None = None,
    sacl: Acl | None = None,
    dacl: Acl | None = None,
) -> Descriptor:
    """A new descriptor, its parts in the order in which NTFS keeps them: lists first."""
    plain = Descriptor(control | SELF_RELATIVE, owner, group, sacl, dacl, (0, 0, 0, 0), 0)
    parts, offsets, end = plain.parts, [0, 0, 0, 0], HEADER_BYTES
    for number in (2, 3, 0, 1):
        if parts[number]:
            offsets[number] = end
            end += len(parts[number])
    return plain._replace(offsets=(offsets[0], offsets[1], offsets[2], offsets[3]), size=end)


def build(descriptor: Descriptor) -> bytes:
    """The bytes of a descriptor; `InvalidError` when its parts do not fit its layout."""
    if not HEADER_BYTES <= descriptor.size <= MAX_BYTES:
        raise InvalidError(f"a security descriptor cannot be {descriptor.size} bytes long")
    data = bytearray(descriptor.size)
    data[:HEADER_BYTES] = _HEADER.pack(
        1, descriptor.resource, descriptor.control, *descriptor.offsets
    )
    placed = zip(descriptor.offsets, descriptor.parts, strict=True)
    for offset, part in (*placed, *descriptor.filler):
        if part and not HEADER_BYTES <= offset <= descriptor.size - len(part):
            raise InvalidError(f"a part of the security descriptor does not fit at {offset}")
        data[offset : offset + len(part)] = part
    return bytes(data)


def to_set(descriptor: Descriptor) -> tuple[int, Descriptor]:
    """Which parts to tell Windows to set, as bits, and the descriptor to hand it.

    Windows keeps the mark that a list was inherited only where it is asked to inherit.

    >>> parts, asked = to_set(laid_out(DACL_PRESENT | 0x0400, owner=Sid(5, (18,))))
    >>> parts, hex(asked.control)
    (5, '0x8504')
    """
    control = descriptor.control
    parts = (
        (1 if descriptor.owner else 0)
        | (2 if descriptor.group else 0)
        | (4 if control & DACL_PRESENT else 0)
        | (_parts_of_sacl(descriptor.sacl) if control & SACL_PRESENT else 0)
    )
    return parts, descriptor._replace(control=control | (control & _INHERITED) >> 2)


def _parts_of_sacl(sacl: Acl | None) -> int:
    kinds = {ace.kind for ace in sacl.aces} if sacl else set()
    return (0x10 if 0x11 in kinds else 0) | (0 if kinds == {0x11} else AUDITING)


def parse(data: bytes) -> Descriptor:
    """What a descriptor says; `InvalidError` when it is cut short or contradicts itself.

    >>> dacl = Acl((Ace(0, 3, bytes.fromhex("ff011f00") + Sid(5, (18,)).to_bytes()),))
    >>> built = build(laid_out(DACL_PRESENT, owner=Sid(5, (32, 544)), dacl=dacl))
    >>> parse(built).owner.text, build(parse(built)) == built
    ('S-1-5-32-544', True)
    """
    fields = Fields(data, "security descriptor")
    if len(data) > MAX_BYTES:
        raise fields.wrong(f"is {len(data)} bytes long; {MAX_BYTES} is the most")
    revision, resource, control, *offsets = fields.unpack(_HEADER, 0)
    if revision != 1:
        raise fields.wrong(f"has the unknown revision {revision}")
    if not control & SELF_RELATIVE:
        raise fields.wrong("holds pointers, not offsets")
    for offset, flag, name in zip(offsets, (0, 0, SACL_PRESENT, DACL_PRESENT), _PARTS, strict=True):
        if 0 < offset < HEADER_BYTES:
            raise fields.wrong(f"has its {name} inside its header, at {offset}")
        if offset and flag and not control & flag:
            raise fields.wrong(f"has an unannounced {name} at {offset}")
    owner, owner_end = _sid(fields, offsets[0]) if offsets[0] else (None, 0)
    group, group_end = _sid(fields, offsets[1]) if offsets[1] else (None, 0)
    sacl, sacl_end = _acl(fields, offsets[2]) if offsets[2] else (None, 0)
    dacl, dacl_end = _acl(fields, offsets[3]) if offsets[3] else (None, 0)
    ends = (owner_end, group_end, sacl_end, dacl_end)
    return Descriptor(
        control=control,
        owner=owner,
        group=group,
        sacl=sacl,
        dacl=dacl,
        offsets=(offsets[0], offsets[1], offsets[2], offsets[3]),
        size=len(data),
        resource=resource,
        filler=tuple(_filler(fields, zip(offsets, ends, strict=True))),
    )


def _sid(fields: Fields, offset: int) -> tuple[Sid, int]:
    revision, count, high, low = fields.unpack(_SID, offset)
    if revision != 1 or count > MAX_SUB_AUTHORITIES:
        raise fields.wrong(f"has a SID of revision {revision} and {count} parts at {offset}")
    start = offset + _SID.size
    parts = struct.unpack(f"<{count}I", fields.piece(start, 4 * count))
    return Sid(high << 32 | low, parts), start + 4 * count


def _acl(fields: Fields, offset: int) -> tuple[Acl, int]:
    revision, first, size, count, second = fields.unpack(_ACL, offset)
    if revision not in (2, 3, 4):
        raise fields.wrong(f"has a list of the unknown revision {revision} at {offset}")
    inside = Fields(fields.piece(offset, size), f"list of {size} bytes")
    aces, at = [], _ACL.size
    if size < at:
        raise fields.wrong(f"has a list of {size} bytes, less than its header, at {offset}")
    for _ in range(count):
        kind, flags, length = inside.unpack(_ACE, at)
        if length < _ACE.size or length % 4:
            raise inside.wrong(f"has a rule of {length} bytes at {at}")
        ace = Ace(kind, flags, inside.piece(at + _ACE.size, length - _ACE.size))
        if kind in PLAIN_KINDS:
            _sid(Fields(ace.body, f"rule at {at}"), _MASK.size)
        aces.append(ace)
        at += length
    slack = inside.piece(at, size - at)
    return Acl(tuple(aces), revision, (first, second), slack), offset + size


def _filler(fields: Fields, parts: Iterable[tuple[int, int]]) -> Iterable[tuple[int, bytes]]:
    """What no part covers and is not zero; `InvalidError` when two parts share bytes."""
    at = HEADER_BYTES
    for start, end in (*sorted(p for p in parts if p[0]), (len(fields.data),) * 2):
        if start < at:
            raise fields.wrong(f"has two parts that share the bytes at {start}")
        between = fields.piece(at, start - at)
        if any(between):
            yield at, between
        at = end
