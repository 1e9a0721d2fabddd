"""Say why something that a restore point does not have may not be removed.

Pure. A restore point says what it has, not what its rules left out, so removing the rest
needs those very rules; they are the backup set's when its hash is the one in the record.
Only rules about names say the same today as they said then: a file that was too large is
smaller by now, and a cache has lost its tag.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.backup.select.choose import lines_of
from agent.backup.select.exclude import Exclusion, Place
from agent.backup.select.places import normalise, select
from agent.backup.select.rule import read_rules
from protocol.errors import Code, SteadError
from protocol.selection import Rules
from protocol.vault.path import join


class CannotTellError(SteadError):
    """What is missing in a restore point may have been left out on purpose."""

    code = Code.PRECONDITION


class Bounds:
    """Where removing ends. `skipped` are paths of the tree that the backup could not read.

    `looked_at_ms`, in ms since 1970, is when somebody was shown what is there; 0 for nobody.

    Raises `CannotTellError` for rules that ask more than names.
    """

    def __init__(
        self,
        paths: Iterable[bytes],
        rules: Rules,
        skipped: Iterable[bytes],
        looked_at_ms: int = 0,
    ) -> None:
        if rules.ask_more_than_names or rules.larger_than or rules.smaller_than:
            raise CannotTellError(
                "the rules of this backup leave out by size, age, file system or CACHEDIR.TAG, so "
                "nobody can tell what was left out then from what is new; restore without "
                "--delete-extra"
            )
        self._selection = select(normalise(paths))
        self._top = Exclusion(read_rules(lines_of(rules))).top
        self._skipped = frozenset(path.strip(b"/") for path in skipped)
        self._looked_at_ns = looked_at_ms * 1_000_000
        self._place: tuple[bytes, Place] = (b"", self._top)

    def reason(
        self, parent: bytes, name: bytes, *, is_directory: bool, changed_at_ns: int = 0
    ) -> str | None:
        """Why this child of a directory stays; None when it may be removed.

        `changed_at_ns`, since 1970, is when it came there, or it or its attributes changed.
        """
        path = join(parent, name)
        if not self._is_chosen(parent):
            return "not among the paths of the backup set"
        if self._was_skipped(path):
            return "the backup could not read it"
        rule = self._place_of(parent).rule_of(path, is_directory=is_directory)
        if rule is not None:
            return f"left out by the rule {rule.text.decode(errors='backslashreplace')}"
        if 0 < self._looked_at_ns <= changed_at_ns:
            return "came or changed after the preview, or after the order was signed; restore again"
        return None

    def _is_chosen(self, directory: bytes) -> bool:
        """Whether everything in a directory was wanted."""
        place = self._selection
        for name in directory.split(b"/") if directory else ():
            if place.whole:
                return True
            below = place.children.get(name)
            if below is None:
                return False
            place = below
        return place.whole

    def _was_skipped(self, path: bytes) -> bool:
        if not self._skipped:
            return False
        while path:
            if path in self._skipped:
                return True
            path = path.rpartition(b"/")[0]
        return b"" in self._skipped

    def _place_of(self, directory: bytes) -> Place:
        if self._place[0] != directory:
            place = self._top
            for name in directory.split(b"/") if directory else ():
                place = place.below(name)
            self._place = directory, place
        return self._place[1]
