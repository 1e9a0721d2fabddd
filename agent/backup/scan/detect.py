"""Find out whether a run walks or goes by what was watched, and where it then looks.

What may be trusted is decided in `agent.watch.evidence`; here are the facts for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.backup.scan.visit import Dirty, linked_directories
from agent.backup.select.pseudo import PSEUDO
from agent.backup.skipped import Skipped
from agent.backup.tree.place import Memory
from agent.backup.tree.state import Header, Previous, load_head
from agent.host import clock
from agent.watch.evidence import Clocks, Evidence, Handover, Now, Why, doubt
from agent.watch.held import Held, find_held
from agent.watch.mounts import MountPlan, holder_of, parse_mounts, plan_mounts
from agent.watch.switched_off import SwitchedOff, switch_off
from agent.watch.watcher import boot_id

_MAX_HELD = 10_000
MAX_LINKS = 50_000
WATCH, WALK = "watch", "walk"


class UnprovenError(Exception):
    """What was watched turned out not to be enough: this run has to walk."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Detection:
    """How one run finds what has changed. `handed` comes from the agent that watches.

    `off` is the file of notes where watching was found wanting. Make it before the run
    looks at anything.
    """

    paths: tuple[bytes, ...]
    handed: Handover | None
    off: Path | None
    start: bytes = b"/"
    why: Why | None = None
    missed: list[bytes] = field(default_factory=list)
    _now: Now = field(init=False)
    _held: Held = field(default_factory=Held)

    def __post_init__(self) -> None:
        clocks = Clocks(clock.wall_ns(), clock.boot_ns())
        if self.handed is None or self.handed.problem:
            self._now = Now("", b"", clocks)
            return
        plan = self._mounts()
        self._now = Now(boot_id(), plan.mark, clocks)
        self._held = find_held(self.paths, plan.devices)

    @property
    def detector(self) -> str:
        """For the restore point: `watch`, or `walk` with the reason."""
        return WATCH if self.why is None else f"{WALK}: {self.why}"

    def decide(
        self, memory: Memory, previous: Previous, header: Header, newest: str, forced: Why | None
    ) -> Why | None:
        """Why this attempt walks; None when it goes by what was watched."""
        self.why = forced or self._missing(memory, previous, header, newest)
        return self.why

    def _missing(
        self, memory: Memory, previous: Previous, header: Header, newest: str
    ) -> Why | None:
        handed = self.handed
        if handed is None or handed.problem:
            return doubt(None, handed, self._now)
        head = previous.head
        if head is None:
            left = load_head(memory.state)
            if left is None:
                return Why.UNCOMMITTED if newest else Why.FIRST
            return Why.RULES if left.header.rules != header.rules else Why.UNCOMMITTED
        if head.header.names != header.names:
            return Why.OWNERS
        if head.skipped is None:
            return Why.LEFT_OUT
        why = doubt(head.evidence, handed, self._now)
        if why is None and (self._held.nameless or len(self._held.paths) > _MAX_HELD):
            return Why.HELD
        if why is None and b"" in self._subtrees(head.skipped, handed):
            return Why.GAP
        return why

    def dirty(self, previous: Previous) -> Dirty:
        """Where a run looks that goes by what was watched."""
        head, handed = previous.head, self.handed
        assert head is not None
        assert head.evidence is not None
        assert handed is not None
        held = self._held.paths.union(head.evidence.held)
        left_out = [one.path for one in head.skipped or ()]
        directories = {
            *handed.directories,
            *linked_directories(previous),
            *(path.rpartition(b"/")[0] for path in (*held, *left_out)),
        }
        return Dirty(frozenset(directories), self._subtrees(head.skipped or (), handed))

    def _subtrees(self, left_out: Iterable[Skipped], handed: Handover) -> frozenset[bytes]:
        """Where anything may have changed; what was left out is looked at again."""
        known = {path: (device, inode) for path, device, inode in handed.roots}
        others = [path for path in self.paths if known.get(path) != self._identity(path)]
        again = [one.path for one in left_out if one.path not in self.paths]
        return frozenset((*handed.subtrees, *others, *again))

    def _identity(self, path: bytes) -> tuple[int, int] | None:
        try:
            stat = os.lstat(b"/" + path)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def evidence(
        self, previous: Previous, links: dict[tuple[int, int], int] | None
    ) -> Evidence | None:
        """What the next run may go by; `links` is None when there are more than `MAX_LINKS`.

        Raises `UnprovenError` for names that were not met.
        """
        handed = self.handed
        if handed is None or handed.problem or links is None:
            return None
        old = previous.head.evidence if previous.head is not None else None
        walked_ns = self._now.clocks.wall_ns
        if self.why is None:
            assert old is not None
            walked_ns = old.walked_ns
            known = {(device, inode): left for device, inode, left in old.links}
            if any(left > known.get(identity, 0) for identity, left in links.items()):
                raise UnprovenError(Why.LINKS)
        return Evidence(
            boot=self._now.boot,
            generation=handed.generation,
            number=handed.number,
            mounts=self._now.mounts,
            clocks=self._now.clocks,
            walked_ns=walked_ns,
            held=tuple(sorted(self._held.paths)[:_MAX_HELD]),
            links=tuple((*identity, left) for identity, left in links.items()),
        )

    @property
    def before_ns(self) -> int:
        """What changed earlier than this, by its time stamp, has been told."""
        return 0 if self.handed is None else self.handed.wall_ns - 1_000_000_000

    def found_wanting(self, path: bytes) -> None:
        """Note that a change of this file was missed, and watch its volume no more."""
        self.missed.append(path)
        if self.off is not None:
            holder = holder_of(path, parse_mounts(_table()))
            volume = b"" if holder is None else holder.point
            switch_off(self.off, SwitchedOff(clock.now(), volume, path))

    def _mounts(self) -> MountPlan:
        return plan_mounts(parse_mounts(_table()), self.paths, PSEUDO)


def _table() -> bytes:
    try:
        return Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return b""
