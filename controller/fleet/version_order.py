"""Which of two versions is later, as the package manager that installed them sees it. Pure.

Debian's order is that of deb-version(7), rpm's that of rpm-version(7). Both walk over
letters and digits in turns; they differ in what they make of the rest.
"""

from __future__ import annotations

import re
from itertools import zip_longest

_DEB_PART = re.compile(r"([^0-9]*)([0-9]*)")
_RPM_PART = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


def compare_versions(one: str, other: str, manager: str) -> int:
    """Less than, equal to or greater than 0 as `one` is earlier, the same or later.

    `manager` is "rpm", or anything else for Debian's order, which also fits most others.

    >>> compare_versions("1.0~rc1", "1.0", "dpkg") < 0, compare_versions("1.10", "1.9", "rpm") > 0
    (True, True)
    """
    compare = _compare_rpm if manager == "rpm" else _compare_deb
    if _epoch(one) != _epoch(other):
        return 1 if _epoch(one) > _epoch(other) else -1
    for left, right in zip(_halves(one), _halves(other), strict=True):
        if found := compare(left, right):
            return found
    return 0


def _epoch(version: str) -> int:
    epoch, colon, _ = version.partition(":")
    return int(epoch) if colon and epoch.isascii() and epoch.isdigit() else 0


def _halves(version: str) -> tuple[str, str]:
    rest = version.partition(":")[2] if ":" in version else version
    upstream, dash, revision = rest.rpartition("-")
    return (upstream, revision) if dash else (rest, "")


def _compare_deb(one: str, other: str) -> int:
    left, right = (_DEB_PART.findall(text) for text in (one, other))
    for (words, number), (other_words, other_number) in zip_longest(
        left, right, fillvalue=("", "")
    ):
        for a, b in zip_longest(words, other_words, fillvalue=""):
            if (rank := _rank(a)) != (other_rank := _rank(b)):
                return 1 if rank > other_rank else -1
        if (value := _number(number)) != (other_value := _number(other_number)):
            return 1 if value > other_value else -1
    return 0


def _rank(character: str) -> int:
    """A tilde sorts before the end, the end before letters, and letters before the rest."""
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) + (0 if character.isascii() and character.isalpha() else 0x110000)


def _compare_rpm(one: str, other: str) -> int:
    for a, b in zip_longest(_RPM_PART.findall(one), _RPM_PART.findall(other), fillvalue=""):
        if a == b:
            continue
        for mark, when_left in (("~", -1), ("^", 1)):
            if mark in (a, b):
                # A caret is later than the end, and earlier than anything else.
                sign = when_left if mark == "~" or "" in (a, b) else -1
                return sign if a == mark else -sign
        if not a or not b:
            return 1 if a else -1
        if a.isdigit() and b.isdigit():
            if _number(a) != _number(b):
                return 1 if _number(a) > _number(b) else -1
        elif a.isdigit() != b.isdigit():
            return 1 if a.isdigit() else -1
        else:
            return 1 if a > b else -1
    return 0


def _number(digits: str) -> tuple[int, str]:
    """A number of any length, in an order that needs no arithmetic."""
    plain = digits.lstrip("0")
    return len(plain), plain
