"""What this machine calls itself, as text that can travel.

Linux lets a host name be any bytes. A machine with a strange one must enroll and link
like any other, so what is no UTF-8 or not printable becomes backslash escapes.
"""

from __future__ import annotations

import socket

MAX_CHARACTERS = 253
"""The longest name that DNS has."""


def hostname() -> str:
    """The kernel's host name, made harmless by `printable`."""
    return printable(socket.gethostname())


def printable(name: str) -> str:
    r"""A name without anything that cannot be encoded or would act on a terminal.

    >>> printable(b"caf\xe9\x1b[1m".decode("utf-8", "surrogateescape"))
    'caf\\xe9\\x1b[1m'
    """
    shown = (one if one.isprintable() else _escaped(one) for one in name)
    return "".join(shown)[:MAX_CHARACTERS]


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
