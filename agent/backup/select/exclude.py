"""Decide by rules in the syntax of .gitignore what lies outside of a backup.

Pure. Each directory gets the few rules that can speak of its children, so that rules
about other places cost nothing there. The last rule that fits decides, as in git: a rule
that begins with `!` takes back what an earlier one left out, but not below a directory
that is left out itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.backup.select.rule import Regex, Rule


class Place:
    """A directory, as far as the rules tell it from others."""

    __slots__ = ("_exclusion", "_may", "_way", "look")

    def __init__(self, exclusion: Exclusion, way: tuple[tuple[Rule, int], ...]) -> None:
        self._exclusion = exclusion
        self._way = way
        may = [rule for rule, at in way if at < 0 or at == len(rule.parts) - 1]
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
            part = rule.parts[at]
            if part is not None and at + 1 < len(rule.parts) and part.fullmatch(name):
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
        fixed = [rule for rule in rules if not rule.floats]
        self.top = self.place(tuple((rule, -1 if rule.parts[0] is None else 0) for rule in fixed))

    def place(self, way: tuple[tuple[Rule, int], ...]) -> Place:
        """The one place for directories of which the same rules may still speak."""
        key = tuple((rule.number, at) for rule, at in way)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = Place(self, way)
        return found
