"""Leave out what the rules of a backup leave out, a directory at a time, and count it.

Only directories that a rule can speak of are looked at name by name. What is left out
is counted under its rule and listed nowhere: it is no failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from agent.backup.select.defaults import default_rules
from agent.backup.select.exclude import Exclusion, Place
from agent.backup.select.rule import read_rules
from protocol.selection import Rules
from protocol.vault.path import join

if TYPE_CHECKING:
    from agent.backup.select.walk import Row

CACHE_TAG: Final = b"CACHEDIR.TAG"
CACHE_TAG_TEXT: Final = "CACHEDIR.TAG"
_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"
"""See bford.info/cachedir."""

OTHER_FILE_SYSTEM: Final = "another file system"
CACHE: Final = "CACHEDIR.TAG"
LARGER: Final = "larger than the limit"
SMALLER: Final = "smaller than the limit"
OLDER: Final = "older than the limit"
NEWER: Final = "newer than the limit"
EXAMPLES: Final = 3
_FILE: Final = 8
_DIRECTORY: Final = 4
_SECOND_NS: Final = 1_000_000_000


@dataclass(slots=True)
class LeftOut:
    """What one rule left out. `size`: bytes of files; directories are not looked into."""

    entries: int = 0
    directories: int = 0
    size: int = 0
    examples: list[bytes] = field(default_factory=list)


class Choice:
    """The rules of one walk. `now_ns` is what ages are counted from.

    Raises INVALID for what is no rule.
    """

    def __init__(self, rules: Rules, *, now_ns: int) -> None:
        self.lines = lines_of(rules)
        self.top: Place = Exclusion(read_rules(self.lines)).top
        self.left_out: dict[str, LeftOut] = {}
        self._rules = rules
        self._limits = _limits(rules, now_ns)

    def keep(
        self,
        parent: bytes,
        place: Place,
        fd: int,
        device: int,
        rows: list[Row],
        *,
        is_cache: bool,
    ) -> list[Row]:
        """The rows of a directory that are backed up. `is_cache`: it has a tag of caches."""
        if is_cache and self._rules.exclude_caches and _is_tagged(fd):
            for row in rows:
                if row[0] != CACHE_TAG:
                    self._leave_out(CACHE, parent, row)
            rows = [row for row in rows if row[0] == CACHE_TAG]
        look = place.look
        if look is not None:
            fits = look.match
            found = [row for row in rows if fits(row[0])]
            if found:
                rows = self._without(rows, found, parent, place)
        if self._limits:
            rows = [row for row in rows if self._is_within(parent, row)]
        if self._rules.one_file_system:
            rows = [row for row in rows if not self._is_elsewhere(parent, row, device)]
        return rows

    def as_json(self, shown: Callable[[bytes], str]) -> list[dict[str, Any]]:
        """What was left out by which rule, the most first."""
        ordered = sorted(self.left_out.items(), key=lambda one: (-one[1].entries, one[0]))
        return [
            {
                "rule": rule,
                "entries": left.entries,
                "directories": left.directories,
                "bytes": left.size,
                "examples": [shown(path) for path in left.examples],
            }
            for rule, left in ordered
        ]

    def _without(self, rows: list[Row], found: list[Row], parent: bytes, place: Place) -> list[Row]:
        gone = set()
        for row in found:
            name, stat, _ = row
            is_directory = stat.st_mode >> 12 == _DIRECTORY
            rule = place.rule_of(join(parent, name), is_directory=is_directory)
            if rule is not None:
                gone.add(name)
                self._leave_out(rule.text.decode(errors="backslashreplace"), parent, row)
        return [row for row in rows if row[0] not in gone] if gone else rows

    def _is_within(self, parent: bytes, row: Row) -> bool:
        if row[1].st_mode >> 12 != _FILE:
            return True
        for name, is_beyond in self._limits:
            if is_beyond(row[1]):
                self._leave_out(name, parent, row)
                return False
        return True

    def _is_elsewhere(self, parent: bytes, row: Row, device: int) -> bool:
        stat = row[1]
        if stat.st_mode >> 12 != _DIRECTORY or stat.st_dev == device:
            return False
        self._leave_out(OTHER_FILE_SYSTEM, parent, row)
        return True

    def _leave_out(self, rule: str, parent: bytes, row: Row) -> None:
        left = self.left_out.setdefault(rule, LeftOut())
        left.entries += 1
        kind = row[1].st_mode >> 12
        left.directories += kind == _DIRECTORY
        left.size += row[1].st_size if kind == _FILE else 0
        if len(left.examples) < EXAMPLES:
            left.examples.append(join(parent, row[0]))


def lines_of(rules: Rules) -> tuple[bytes, ...]:
    """All rules in the order in which they are asked: this system's own, then those given."""
    return (() if rules.no_defaults else default_rules()) + tuple(rules.exclude)


def hash_of(rules: Rules) -> bytes:
    """Changes when a backup would leave out other things; empty when it leaves out nothing."""
    lines = lines_of(rules)
    numbers = (
        rules.exclude_caches,
        rules.one_file_system,
        rules.larger_than,
        rules.smaller_than,
        rules.older_than_s,
        rules.newer_than_s,
    )
    if not lines and not any(numbers):
        return b""
    # The version changes when the same lines come to mean something else.
    state = blake3(derive_key_context="stead backup exclusions v2")
    for number in numbers:
        state.update(int(number).to_bytes(8, "little"))
    for line in lines:
        state.update(len(line).to_bytes(4, "little") + line)
    return state.digest()


def _limits(rules: Rules, now_ns: int) -> list[tuple[str, Callable[[os.stat_result], bool]]]:
    limits: list[tuple[str, Callable[[os.stat_result], bool]]] = []
    if rules.larger_than:
        limits.append((LARGER, lambda stat: stat.st_size > rules.larger_than))
    if rules.smaller_than:
        limits.append((SMALLER, lambda stat: stat.st_size < rules.smaller_than))
    if rules.older_than_s:
        oldest = now_ns - rules.older_than_s * _SECOND_NS
        limits.append((OLDER, lambda stat: stat.st_mtime_ns < oldest))
    if rules.newer_than_s:
        newest = now_ns - rules.newer_than_s * _SECOND_NS
        limits.append((NEWER, lambda stat: stat.st_mtime_ns > newest))
    return limits


def _is_tagged(fd: int) -> bool:
    try:
        file = os.open(CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    except OSError:
        return False
    try:
        return os.read(file, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
    finally:
        os.close(file)
