"""Decide by rules in the syntax of .gitignore what lies outside of a backup.

Pure. pathspec turns a rule into an expression; here each directory gets the few rules
that can speak of its children, so that rules about other places cost nothing there.
The last rule that fits decides, as in git: a rule that begins with `!` takes back what
an earlier one left out, but not below a directory that is left out itself. Names are
compared byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from protocol.errors import InvalidError

MAX_RULES: Final = 10_000
MAX_RULE_BYTES: Final = 4096

_ENDS: Final = (rb"(?:(?P<ps_d>/)|$)", rb"(?P<ps_d>/)")
_ANYWHERE: Final = rb"^(?:.+/)?"
Regex = re.Pattern[bytes]


class Rule:
    """One line. `parts` are its directories and its last name, where those are certain.

    `parts` is None for a rule that may speak of any place.
    """

    __slots__ = ("floats", "number", "only_directories", "parts", "regex", "takes_back", "text")

    def __init__(self, number: int, text: bytes, source: bytes, *, takes_back: bool) -> None:
        self.number = number
        self.text = text
        self.takes_back = takes_back
        body = text.removeprefix(b"!")
        self.only_directories = body.rstrip(b" ").endswith(b"/")
        self.regex = _whole(source)
        inner = body.rstrip(b" ").rstrip(b"/")
        self.floats = b"/" not in inner and source.startswith(_ANYWHERE)
        self.parts = None if self.floats else _parts(inner.removeprefix(b"/"))

    def fits(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether it speaks of this very path, not merely of one above it."""
        if self.only_directories and not is_directory:
            return False
        return self.regex.search(path) is not None

    def first_look(self) -> bytes:
        """An expression for a bare name that fits whatever the rule may fit."""
        source = self.regex.pattern
        if self.floats:
            return source.removeprefix(_ANYWHERE)
        last = self.parts[-1] if self.parts else None
        return b"" if last is None else last.pattern.removeprefix(b"^")


def _whole(source: bytes) -> Regex:
    """The expression of pathspec, but for a path itself and not for what lies below it."""
    for end in _ENDS:
        if source.endswith(end):
            source = source[: -len(end)] + rb"\Z"
            break
    return re.compile(source, re.DOTALL)


def _parts(inner: bytes) -> tuple[Regex | None, ...] | None:
    """Expressions of the names on the way; None stands for any number of directories."""
    if b"\\" in inner or b"[" in inner or b" /" in inner:
        return None
    parts: list[Regex | None] = []
    for name in inner.split(b"/"):
        if b"**" in name:
            return (*parts, None)
        read = _read(b"/" + name)
        if read is None:
            return None
        parts.append(_whole(read[0]))
    return tuple(parts)


def _read(text: bytes) -> tuple[bytes, bool] | None:
    try:
        pattern = GitIgnoreSpecPattern(text)
    except GitIgnorePatternError as error:
        raise InvalidError(
            f"{text[:200].decode(errors='backslashreplace')!r} is no rule in the syntax of "
            ".gitignore"
        ) from error
    if pattern.include is None or pattern.regex is None:
        return None
    return pattern.regex.pattern, not pattern.include


def read_rules(lines: Iterable[bytes]) -> list[Rule]:
    """The rules in some lines; blank ones and comments are none. INVALID for what is no rule."""
    rules: list[Rule] = []
    for line in lines:
        if len(line) > MAX_RULE_BYTES or len(rules) >= MAX_RULES:
            raise InvalidError(
                f"there are at most {MAX_RULES} rules of at most {MAX_RULE_BYTES} bytes each"
            )
        if b"\n" in line or b"\0" in line:
            raise InvalidError("a rule is one line without NUL")
        read = _read(line)
        if read is not None:
            rules.append(Rule(len(rules), line, read[0], takes_back=read[1]))
    return rules


class Place:
    """A directory, as far as the rules tell it from others."""

    __slots__ = ("_exclusion", "_may", "_way", "look")

    def __init__(self, exclusion: Exclusion, way: tuple[tuple[Rule, int], ...]) -> None:
        self._exclusion = exclusion
        self._way = way
        may = [rule for rule, at in way if at < 0 or at == len(rule.parts or ()) - 1]
        self._may = sorted([*exclusion.floating, *may], key=lambda rule: -rule.number)
        looks = [rule.first_look() for rule in self._may if not rule.takes_back]
        self.look: Regex | None = None
        """Fits the names that may be left out; None where there is nothing to look for."""
        if looks:
            self.look = re.compile(b"|".join(b"(?:%b)" % one for one in looks), re.DOTALL)

    def below(self, name: bytes) -> Place:
        """The place of a child directory."""
        if not self._way:
            return self
        way = []
        for rule, at in self._way:
            if at < 0:
                way.append((rule, at))
                continue
            assert rule.parts is not None
            part = rule.parts[at]
            if part is not None and at + 1 < len(rule.parts) and part.match(name):
                open_end = rule.parts[at + 1] is None
                way.append((rule, -1 if open_end else at + 1))
        return self._exclusion.place(tuple(way))

    def rule_of(self, path: bytes, *, is_directory: bool) -> Rule | None:
        """The rule that leaves out this child, given by its whole path; None keeps it."""
        for rule in self._may:
            if rule.fits(path, is_directory=is_directory):
                return None if rule.takes_back else rule
        return None


class Exclusion:
    """Rules, made ready for a walk that begins in `top`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.floating = [rule for rule in rules if rule.floats]
        self._places: dict[tuple[tuple[int, int], ...], Place] = {}
        way = []
        for rule in rules:
            if not rule.floats:
                open_end = rule.parts is None or rule.parts[0] is None
                way.append((rule, -1 if open_end else 0))
        self.top = self.place(tuple(way))

    def place(self, way: tuple[tuple[Rule, int], ...]) -> Place:
        """The one place for directories of which the same rules may still speak."""
        key = tuple((rule.number, at) for rule, at in way)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = Place(self, way)
        return found
