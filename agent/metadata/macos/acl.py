"""Access control lists of macOS: their bytes, and the lines that `ls -le` shows of them. Pure.

The bytes are those of `acl_copy_ext`, which are the same on every Mac: `struct
kauth_filesec` of `sys/kauth.h` with every number big endian, that is the magic (4), the
GUIDs of owner and group (16 each), the count of entries (4), the list's flags (4), and for
each entry a GUID (16), its flags (4) and its rights (4). Owner and group are zeros here:
an entry of a tree has its own.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final, NamedTuple
from uuid import UUID

from protocol.errors import InvalidError

NAME: Final = "macos.acl"
MAX_ENTRIES: Final = 128

_MAGIC: Final = 0x012C_C16D
_NO_LIST: Final = 0xFFFF_FFFF
_HEADER: Final = Struct(">I16s16sII")
_ENTRY: Final = Struct(">16sII")
_NOBODY: Final = bytes(16)
_KIND: Final = 0xF
_KINDS: Final = {1: "allow", 2: "deny"}
_INHERITED: Final = 0x10
_INHERITING: Final = {
    0x20: "file_inherit",
    0x40: "directory_inherit",
    0x80: "limit_inherit",
    0x100: "only_inherit",
}
_LIST_FLAGS: Final = {0x1_0000: "defer_inherit", 0x2_0000: "no_inherit"}
_OF_ALL: Final = {
    1 << 4: "delete",
    1 << 6: "delete_child",
    1 << 7: "readattr",
    1 << 8: "writeattr",
    1 << 9: "readextattr",
    1 << 10: "writeextattr",
    1 << 11: "readsecurity",
    1 << 12: "writesecurity",
    1 << 13: "chown",
    1 << 20: "synchronize",
}
_OF_FILES: Final = {1 << 1: "read", 1 << 2: "write", 1 << 3: "execute", 1 << 5: "append"}
_OF_FOLDERS: Final = {
    1 << 1: "list",
    1 << 2: "add_file",
    1 << 3: "search",
    1 << 5: "add_subdirectory",
}
_RIGHTS_OF: Final = {
    word: bit for words in (_OF_ALL, _OF_FILES, _OF_FOLDERS) for bit, word in words.items()
}
_INHERITING_OF: Final = {word: bit for bit, word in _INHERITING.items()}
_USER: Final = bytes.fromhex("ffffeeeeddddccccbbbbaaaa")
_GROUP: Final = bytes.fromhex("abcdefabcdefabcdefabcdef")
_EVERYONE: Final = 12
_LINE: Final = re.compile(r" *(\d+): (\S+)( inherited)? (allow|deny)(?: (\S+))?")
_HEX: Final = re.compile(r"(rights|flags)=0x([0-9a-f]{1,8})")


class Ace(NamedTuple):
    """One entry of a list: whom it is about (a GUID), its flags with its kind, its rights."""

    who: bytes
    flags: int
    rights: int


class Acl(NamedTuple):
    """A list; its entries are asked in this order."""

    entries: tuple[Ace, ...]
    flags: int = 0


def parse(data: bytes) -> Acl | None:
    """Read a list, and None for bytes that say there is none. `InvalidError` for others."""
    if len(data) < _HEADER.size:
        raise InvalidError(f"an access control list of {len(data)} bytes is cut off")
    magic, _, _, count, flags = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise InvalidError(f"an access control list begins with {magic:#010x}")
    if count == _NO_LIST:
        count, is_list = 0, False
    else:
        is_list = True
    if count > MAX_ENTRIES:
        raise InvalidError(f"an access control list has {count} entries; 128 can be")
    if len(data) != _HEADER.size + count * _ENTRY.size:
        raise InvalidError(f"an access control list of {count} entries has {len(data)} bytes")
    if not is_list:
        return None
    entries = tuple(Ace(*one) for one in _ENTRY.iter_unpack(data[_HEADER.size :]))
    for number, one in enumerate(entries):
        if one.flags & _KIND not in _KINDS:
            raise InvalidError(f"entry {number} of an access control list is of no known kind")
    return Acl(entries, flags)


def pack(acl: Acl) -> bytes:
    """Undo `parse`."""
    header = _HEADER.pack(_MAGIC, _NOBODY, _NOBODY, len(acl.entries), acl.flags)
    return header + b"".join(_ENTRY.pack(*one) for one in acl.entries)


def kept(data: bytes) -> bytes:
    """What an entry keeps of bytes that macOS gave; empty for no list. `InvalidError`."""
    acl = parse(data)
    return b"" if acl is None or not (acl.entries or acl.flags) else pack(acl)


def lines(acl: Acl, *, is_folder: bool) -> list[str]:
    """What `ls -le` would show, with numbers for the names that only that Mac knows.

    >>> everyone = bytes.fromhex("abcdefabcdefabcdefabcdef0000000c")
    >>> lines(Acl((Ace(everyone, 2, 1 << 4),)), is_folder=True)
    ['0: group:everyone deny delete']
    """
    words = _OF_ALL | (_OF_FOLDERS if is_folder else _OF_FILES)
    shown = [_line(number, one, words) for number, one in enumerate(acl.entries)]
    return shown + _list_flags(acl.flags)


def read_lines(shown: list[str]) -> Acl:
    """Undo `lines`, whether of a file or of a folder. `InvalidError` for what is none."""
    entries: list[Ace] = []
    flags = 0
    for line in shown:
        if line.startswith("list "):
            flags |= _read_list_flags(line.removeprefix("list "))
            continue
        found = _LINE.fullmatch(line)
        if found is None or int(found[1]) != len(entries) or len(entries) == MAX_ENTRIES:
            raise InvalidError(f"this is no line of an access control list: {line[:200]!r}")
        entries.append(_read_entry(found[2], found[3] or "", found[4], found[5] or ""))
    return Acl(tuple(entries), flags)


def _line(number: int, one: Ace, words: dict[int, str]) -> str:
    inherited = " inherited" if one.flags & _INHERITED else ""
    said = _words(one.rights, words, "rights")
    said += _words(one.flags & ~_KIND & ~_INHERITED, _INHERITING, "flags")
    rights = f" {','.join(said)}" if said else ""
    return f"{number}: {_name(one.who)}{inherited} {_KINDS[one.flags & _KIND]}{rights}"


def _words(bits: int, words: dict[int, str], rest: str) -> list[str]:
    said = [words[bit] for bit in sorted(words) if bits & bit]
    left = bits & ~sum(words)
    return [*said, f"{rest}={left:#x}"] if left else said


def _name(who: bytes) -> str:
    number = int.from_bytes(who[12:])
    if who[:12] == _USER:
        return f"user:{number}"
    if who[:12] == _GROUP:
        return "group:everyone" if number == _EVERYONE else f"group:{number}"
    return str(UUID(bytes=who)).upper()


def _read_entry(name: str, inherited: str, kind: str, said: str) -> Ace:
    flags = (_INHERITED if inherited else 0) | (1 if kind == "allow" else 2)
    rights = 0
    for word in filter(None, said.split(",")):
        rest = _HEX.fullmatch(word)
        if rest is not None and rest[1] == "rights":
            rights |= int(rest[2], 16)
        elif rest is not None:
            flags |= int(rest[2], 16) & ~_KIND
        elif word in _RIGHTS_OF:
            rights |= _RIGHTS_OF[word]
        elif word in _INHERITING_OF:
            flags |= _INHERITING_OF[word]
        else:
            raise InvalidError(f"an access control list names an unknown right: {word[:80]!r}")
    return Ace(_read_name(name), flags, rights)


def _read_name(name: str) -> bytes:
    kind, _, number = name.partition(":")
    if (kind, number) == ("group", "everyone"):
        number = str(_EVERYONE)
    try:
        if kind in ("user", "group") and number:
            return (_USER if kind == "user" else _GROUP) + int(number).to_bytes(4)
        return UUID(name).bytes
    except (ValueError, OverflowError) as error:
        raise InvalidError(
            f"an access control list names {name[:80]!r}, which is no number and no GUID"
        ) from error


def _list_flags(flags: int) -> list[str]:
    said = _words(flags, _LIST_FLAGS, "flags")
    return [f"list {','.join(said)}"] if said else []


def _read_list_flags(said: str) -> int:
    flags = 0
    for word in said.split(","):
        rest = _HEX.fullmatch(word)
        known = [bit for bit, one in _LIST_FLAGS.items() if one == word]
        if rest is not None and rest[1] == "flags":
            flags |= int(rest[2], 16)
        elif known:
            flags |= known[0]
        else:
            raise InvalidError(f"an access control list has an unknown flag: {word[:80]!r}")
    return flags
