"""Carry names of Windows as bytes, and decide which names Windows can hold.

Windows counts in units of UTF-16 and does not mind a surrogate without its other half. As
bytes such a name is UTF-8 with the lone surrogate written as if it were a character
(WTF-8), so that every name comes back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from protocol.errors import InvalidError

MAX_UNITS: Final = 255
_RESERVED: Final = frozenset('<>:"/\\|?*')
_DEVICE: Final = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?",
    re.IGNORECASE | re.DOTALL,
)


def from_units(units: bytes) -> bytes:
    """Bytes of UTF-16, little-endian, as WTF-8; `InvalidError` when half a unit is left.

    >>> from_units("é".encode("utf-16-le")), from_units(b"\\x00\\xd8")
    (b'\\xc3\\xa9', b'\\xed\\xa0\\x80')
    """
    try:
        return units.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidError(f"{units[:64].hex()!r} are not whole units of UTF-16") from error


def to_units(name: bytes) -> bytes:
    """The same name for Windows; `InvalidError` when it is not WTF-8."""
    try:
        units = name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidError(f"the name {name[:64]!r} is not Unicode") from error
    if from_units(units) != name:
        raise InvalidError(f"the name {name[:64]!r} has a character in two halves")
    return units


def problem_of(name: bytes) -> str | None:
    """Why Windows cannot hold this name in a directory; `None` when it can.

    >>> problem_of(b"report.txt"), problem_of(b"nul.txt")
    (None, 'is the name of a device')
    """
    try:
        units = to_units(name)
    except InvalidError:
        return "is not Unicode"
    text = name.decode("utf-8", "surrogatepass")
    if not text:
        return "is empty"
    if len(units) // 2 > MAX_UNITS:
        return f"is longer than {MAX_UNITS} characters"
    if any(character < " " or character in _RESERVED for character in text):
        return 'holds one of < > : " / \\ | ? * or a control character'
    if text[-1] in ". ":
        return "ends with a dot or a space"
    if _DEVICE.fullmatch(text):
        return "is the name of a device"
    return None


def clashes(names: Iterable[bytes]) -> list[tuple[bytes, ...]]:
    """Names of one directory that Windows takes for the same, each group in order.

    Letters are compared as capitals, one by one; a volume has its own table for that,
    which may know fewer letters.

    >>> clashes([b"Makefile", b"makefile", b"README"])
    [(b'Makefile', b'makefile')]
    """
    groups: dict[str, list[bytes]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_folded(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _folded(name: bytes) -> str:
    # A name that is not UTF-8 has no capitals that anybody knows: it is compared as it is.
    text = name.decode("utf-8", "surrogateescape")
    return "".join(
        capital
        if len(capital := character.upper()) == 1 and ord(character) < 0x10000
        else character
        for character in text
    )
