"""Words of somebody else that people are shown."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_STEERS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
"""DEL, the control characters beyond ASCII, and what turns the direction of text, in UTF-8."""


def encode_json(value: Any) -> bytes:
    r"""JSON that steers no terminal: what would is written as an escape, which reads the same.

    >>> encode_json(["\x1b[2J", "\x9b2J", "\u202e"])
    b'["\\u001b[2J","\\u009b2J","\\u202e"]'
    """
    data = msgspec.json.encode(value)
    return _STEERS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), data)


def shown_text(text: str, *, longest: int) -> str:
    """These words on one line, cut, and without what steers a terminal.

    >>> shown_text("so\\x1b[31m it\\nends", longest=13)
    'so?[31m it en'
    """
    words = " ".join(text[: longest * 4].split())[:longest]
    return "".join(one if one.isprintable() else "?" for one in words)
