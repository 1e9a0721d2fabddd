"""A line in the syntax of .gitignore, made an expression that fits what git fits.

Pure. Where git's manual says less than git does, git decides (`dir.c`, `wildmatch.c`, asked
by the tests): `a/**/` fits the directories below `a` and not `a`; two stars that are the
first wildcard of a rule with a slash cross directories even right after a letter. Names
are compared byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from protocol.errors import InvalidError

MAX_RULES: Final = 10_000
MAX_RULE_BYTES: Final = 4096

Regex = re.Pattern[bytes]

_SLASH: Final = b"/"
_STAR: Final = b"[^/]*"
_ANY_DIRECTORIES: Final = b"(?:.*/)?"
_ANYTHING: Final = b".*"
_LEAST: Final = {_ANY_DIRECTORIES: b"(?:.*?/)??", _ANYTHING: b".*?"}
"""The same, when they take as little as they can."""

_ASCII: Final = [chr(code) for code in range(128)]
_CLASSES: Final = {
    name: frozenset(code for code, char in enumerate(_ASCII) if fits(char))
    for name, fits in {
        b"alnum": str.isalnum,
        b"alpha": str.isalpha,
        b"blank": " \t".__contains__,
        b"cntrl": lambda char: char < " " or char == "\x7f",
        b"digit": str.isdigit,
        b"graph": lambda char: "!" <= char <= "~",
        b"lower": str.islower,
        b"print": lambda char: " " <= char <= "~",
        b"punct": lambda char: "!" <= char <= "~" and not char.isalnum(),
        b"space": " \t\n\r".__contains__,
        b"upper": str.isupper,
        b"xdigit": "0123456789abcdefABCDEF".__contains__,
    }.items()
}


class _NeverFitsError(Exception):
    """A set without an end, or a class that does not exist: to git a rule that fits nothing."""


class Rule:
    """One line. `parts` are its directories and its last name, where those are certain.

    A rule that `floats` speaks of names anywhere. A None in `parts` stands for any number
    of directories and what follows them.
    """

    __slots__ = ("_regex", "floats", "number", "only_directories", "parts", "takes_back", "text")

    def __init__(self, number: int, text: bytes, body: bytes, *, takes_back: bool) -> None:
        self.number = number
        self.text = text
        self.takes_back = takes_back
        self.only_directories = body.endswith(b"/")
        body = body.removesuffix(b"/")
        self.floats = b"/" not in body
        pieces = _pieces(body.removeprefix(b"/"), crosses=not self.floats)
        self._regex = re.compile(_joined(pieces), re.DOTALL)
        self.parts = _parts(pieces)

    def fits(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether it speaks of this very path, not merely of one above it."""
        if self.only_directories and not is_directory:
            return False
        start = path.rfind(b"/") + 1 if self.floats else 0
        return self._regex.fullmatch(path, start) is not None

    def first_look(self) -> bytes:
        """An expression for a bare name that fits whatever the rule may fit."""
        last = self.parts[-1]
        return b"" if last is None else last.pattern + rb"\Z"


def read_rules(lines: Iterable[bytes]) -> list[Rule]:
    """The rules in some lines; INVALID for what is no rule.

    Blank lines and comments are none, nor is what git takes for a rule that fits nothing.
    """
    rules: list[Rule] = []
    for line in lines:
        if len(line) > MAX_RULE_BYTES or len(rules) >= MAX_RULES:
            raise InvalidError(
                f"there are at most {MAX_RULES} rules of at most {MAX_RULE_BYTES} bytes each"
            )
        if b"\n" in line or b"\0" in line:
            raise InvalidError("a rule is one line without NUL")
        text = _trimmed(line.removesuffix(b"\r"))
        body = text.removeprefix(b"!")
        if text.startswith(b"#") or not body.strip(b"/"):
            continue
        try:
            rules.append(Rule(len(rules), line, body, takes_back=body != text))
        except _NeverFitsError:
            continue
    return rules


def _trimmed(line: bytes) -> bytes:
    """Without the spaces at its end, but for one that a backslash keeps."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return kept + b" " if backslashes % 2 and kept != line else kept


def _pieces(pattern: bytes, *, crosses: bool) -> list[bytes]:
    """Expressions, with the constants above among them. `crosses`: it speaks of whole paths."""
    pieces: list[bytes] = []
    at = 0
    is_plain = True
    while at < len(pattern):
        one = pattern[at : at + 1]
        at += 1
        if one == b"\\":
            if at == len(pattern):
                raise InvalidError(
                    f"{pattern[:200].decode(errors='backslashreplace')!r} ends in a backslash "
                    "and is no rule in the syntax of .gitignore; write two for one of a name"
                )
            one = pattern[at : at + 1]
            at += 1
            pieces.append(_SLASH if one == b"/" else re.escape(one))
        elif one == b"?":
            pieces.append(b"[^/]")
        elif one == b"[":
            piece, at = _set(pattern, at)
            pieces.append(piece)
        elif one == b"*":
            first = at - 1
            while pattern[at : at + 1] == b"*":
                at += 1
            begins = is_plain or pattern[first - 1 : first] == b"/"
            if not (crosses and begins and at - first > 1):
                pieces.append(_STAR)
            elif pattern[at : at + 1] == b"/":
                pieces.append(_ANY_DIRECTORIES)
                at += 1
            elif at == len(pattern) or pattern[at : at + 2] == b"\\/":
                pieces.append(_ANYTHING)
            else:
                pieces.append(_STAR)
        else:
            pieces.append(re.escape(one))
            continue
        is_plain = False
    return pieces


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The expression of a set whose first byte, after its `[`, is at `at`; and where it ends."""
    is_negated = pattern[at : at + 1] in (b"!", b"^")
    at += is_negated
    start = at
    members: set[int] = set()
    before: int | None = None

    def byte(place: int) -> int:
        if place >= len(pattern):
            raise _NeverFitsError
        return pattern[place]

    while at == start or byte(at) != ord("]"):
        one = byte(at)
        if one == ord("\\"):
            at += 1
            before = byte(at)
            members.add(before)
        elif one == ord("-") and before is not None and pattern[at + 1 : at + 2] not in (b"", b"]"):
            at += 1
            at += byte(at) == ord("\\")
            members.update(range(before, byte(at) + 1))
            before = None
        elif one == ord("[") and byte(at + 1) == ord(":") and (named := _class(pattern, at + 2)):
            members.update(named[0])
            at = named[1]
            before = None
        else:
            members.add(one)
            before = one
        at += 1
    members.discard(ord("/"))
    if not members and not is_negated:
        return b"(?!)", at + 1
    listed = b"".join(b"\\x%02x" % one for one in sorted(members))
    return (b"[^/%b]" if is_negated else b"[%b]") % listed, at + 1


def _class(pattern: bytes, start: int) -> tuple[frozenset[int], int] | None:
    """The bytes of a named class and where its last bracket is; None where none is named."""
    end = pattern.find(b"]", start)
    if end < 0:
        raise _NeverFitsError
    if end == start or pattern[end - 1 : end] != b":":
        return None
    found = _CLASSES.get(pattern[start : end - 1])
    if found is None:
        raise _NeverFitsError
    return found, end


def _joined(pieces: list[bytes]) -> bytes:
    """One expression. A star takes the first place where what follows it fits.

    Within a name that loses nothing while another star follows, and a name that does not fit
    is not tried in every way there is. The same holds of `**` within a path while another
    follows: what stands between the two is of so many names, whatever comes before.
    """
    joined: list[bytes] = []
    star: int | None = None
    way: int | None = None
    for piece in pieces:
        if piece == _STAR:
            if star is not None:
                joined[star] = b"(?>[^/]*?"
                joined.append(b")")
            star = len(joined)
        elif piece == _SLASH:
            star = None
        elif piece in _LEAST:
            star = None
            if way is not None:
                joined[way] = b"(?>" + _LEAST[joined[way]]
                joined.append(b")")
            way = len(joined)
        joined.append(piece)
    return b"".join(joined)


def _parts(pieces: list[bytes]) -> tuple[Regex | None, ...]:
    parts: list[Regex | None] = []
    name: list[bytes] = []
    for piece in (*pieces, _SLASH):
        if piece in (_ANY_DIRECTORIES, _ANYTHING):
            return (*parts, None)
        if piece == _SLASH:
            parts.append(re.compile(_joined(name), re.DOTALL))
            name = []
        else:
            name.append(piece)
    return tuple(parts)
