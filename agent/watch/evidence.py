"""Decide whether a backup may trust what was watched, or has to walk everything.

Pure. Events are hints: a run may go by them only when it can be shown that every change
since the last committed run has been among them. Whatever is missing in that chain, the
run walks and says why.

A watcher counts handovers. What is handed over as number `n` holds every directory that
changed after handover `since`. A run notes `n` in its state; so the next may go by what
it is handed when that comes from the same watcher, without a gap, since `n` or earlier.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from protocol.errors import UNREADABLE

WALK_EVERY_NS: Final = 7 * 24 * 3600 * 1_000_000_000
_STEP_NS: Final = 1_000_000_000
"""By how much a clock that is being adjusted may fall behind without having been set back."""


class Why(StrEnum):
    """Why a run walks."""

    FIRST = "first"
    RULES = "rules"
    UNCOMMITTED = "uncommitted"
    UNWATCHED = "unwatched"
    REBOOT = "reboot"
    GAP = "gap"
    OVERFLOW = "overflow"
    LIMIT = "limit"
    REMOUNT = "remount"
    CLOCK = "clock"
    OWNERS = "owners"
    SCHEDULED = "scheduled"
    OFF = "off"
    LINKS = "links"
    HELD = "held"
    MISSED = "missed"
    DAMAGED = "damaged"
    LEFT_OUT = "left_out"
    CHOICE = "choice"


SENTENCES: Final = {
    Why.FIRST: "there is no earlier run to go on from",
    Why.RULES: "the last run was made by other rules",
    Why.UNCOMMITTED: "the last run was not committed, or is not the one that this agent remembers",
    Why.UNWATCHED: "these paths are not watched here",
    Why.REBOOT: "the machine was started anew",
    Why.GAP: "the agent has not watched without a gap since the last run",
    Why.OVERFLOW: "more happened at once than the system's queue of events holds",
    Why.LIMIT: "there are more directories than may be watched",
    Why.REMOUNT: "file systems were mounted or unmounted",
    Why.CLOCK: "the clock was set back",
    Why.OWNERS: "the names of users or groups have changed",
    Why.SCHEDULED: "a full walk was due",
    Why.OFF: "watching was switched off here after it had missed a change",
    Why.LINKS: "a file got another name, and not all of its names are known",
    Why.HELD: "a program writes to a file whose name cannot be told from here",
    Why.MISSED: "a change was found that no event had told",
    Why.LEFT_OUT: "more was left out than is remembered",
    Why.CHOICE: "what is left out depends on more than names and sizes",
    Why.DAMAGED: "what the agent remembers of the last run is damaged",
}


def why_of(detector: str) -> str:
    """What a restore point's detector says about why its run walked, in words.

    >>> why_of("walk: clock"), why_of("watch")
    ('the clock was set back', '')
    """
    _, _, word = detector.partition(": ")
    try:
        return SENTENCES[Why(word)]
    except ValueError:
        return word


class Clocks(msgspec.Struct, frozen=True, array_like=True):
    """The wall clock and the one that counts since the machine was started."""

    wall_ns: int
    boot_ns: int


class Evidence(msgspec.Struct, frozen=True):
    """What a run keeps with its state. `walked_ns`: when all was last walked.

    `held` are files that were open for writing: they may change without an event.
    `links` are files with names elsewhere: device, inode, and how many.
    """

    boot: str
    generation: str
    number: int
    mounts: bytes
    clocks: Clocks
    walked_ns: int
    held: tuple[bytes, ...] = ()
    links: tuple[tuple[int, int, int], ...] = ()


class Handover(msgspec.Struct, frozen=True):
    """What the watcher hands over to a run, as the file that a task's request names.

    Paths have no first slash. `directories` have changed themselves, of `subtrees` anything
    may have. `roots` are the watched paths with device and inode,
    `wall_ns` is when. `problem`: why nothing is
    watched. `ended`: of earlier watchers of this agent, why they ended.
    """

    task: str
    boot: str
    generation: str
    since: int
    number: int
    mounts: bytes
    roots: tuple[tuple[bytes, int, int], ...]
    directories: tuple[bytes, ...]
    subtrees: tuple[bytes, ...]
    wall_ns: int = 0
    problem: str = ""
    ended: tuple[tuple[str, str], ...] = ()


class Drained(msgspec.Struct, frozen=True):
    """The file that tells the agent what it may forget: all up to this handover."""

    generation: str
    number: int


class Now(NamedTuple):
    """What a run finds when it begins."""

    boot: str
    mounts: bytes
    clocks: Clocks


def doubt(evidence: Evidence | None, handed: Handover | None, now: Now) -> Why | None:
    """Why this run has to walk; None when it may go by what was watched."""
    if handed is None:
        return Why.UNWATCHED
    if handed.problem:
        return Why(handed.problem)
    if evidence is None or not evidence.generation:
        return Why.GAP
    if evidence.boot != now.boot or handed.boot != now.boot:
        return Why.REBOOT
    if evidence.generation != handed.generation:
        return Why(dict(handed.ended).get(evidence.generation, Why.GAP))
    if not handed.since <= evidence.number < handed.number:
        return Why.GAP
    if not evidence.mounts == handed.mounts == now.mounts:
        return Why.REMOUNT
    if was_set_back(evidence.clocks, now.clocks):
        return Why.CLOCK
    if now.clocks.wall_ns - evidence.walked_ns >= WALK_EVERY_NS:
        return Why.SCHEDULED
    return None


def was_set_back(before: Clocks, after: Clocks) -> bool:
    """Whether the wall clock has gone on by less than time did.

    >>> was_set_back(Clocks(10**18, 0), Clocks(10**18 - 1, 5))
    True
    """
    wall, boot = after.wall_ns - before.wall_ns, after.boot_ns - before.boot_ns
    return wall < 0 or boot < 0 or wall < boot - _STEP_NS


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Handover).decode


def encode_handover(handed: Handover) -> bytes:
    """For the file."""
    return _encode(handed)


def decode_handover(data: bytes, task: str) -> Handover | None:
    """From the file; None when it is damaged or was meant for another task."""
    try:
        handed = _decode(data)
    except UNREADABLE:
        return None
    return handed if handed.task == task else None


def encode_drained(drained: Drained) -> bytes:
    """For the file."""
    return _encode(drained)


def decode_drained(data: bytes) -> Drained | None:
    """From the file; None when it is damaged."""
    try:
        return msgspec.msgpack.decode(data, type=Drained)
    except UNREADABLE:
        return None
