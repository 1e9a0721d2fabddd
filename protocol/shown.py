"""Words of somebody else that people are shown."""

from __future__ import annotations


def shown_text(text: str, *, longest: int) -> str:
    """These words on one line, cut, and without what steers a terminal.

    >>> shown_text("so\\x1b[31m it\\nends", longest=13)
    'so?[31m it en'
    """
    words = " ".join(text[: longest * 4].split())[:longest]
    return "".join(one if one.isprintable() else "?" for one in words)
