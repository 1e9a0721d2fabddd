"""Decide whether who says Hello is the machine, or a copy of it.

Pure: what is kept of a machine's ratchet and what a holder shows come in, a verdict and
what to keep come out. Each Hello shows a token, each Welcome hands out the next one, and a
token counts as old once a newer one was acknowledged or shown. So of two holders of one
identity one falls behind, at the latest at the second Hello of either.

A token is a generation, 8 bytes big-endian, and 16 bytes of HMAC-SHA256 by a key that the
database keeps: nobody can guess a newer one, and a controller whose database was put back
knows those that it gave out later.

Hardware, where a holder can tell it, decides the two cases in which nobody did anything
wrong: the same computer with an older state is a machine that was put back to a snapshot,
another computer with an older state is a copy that shall be a machine of its own. All else
parks the machine. Hardware is a word of the holder's; that nobody gains by lying is said in
`docs/adr/0059`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from protocol.ids import MachineId

NEVER_OURS = -1
"""The generation of a token that this installation did not make."""

NOBODYS = -2
"""A generation that no holder shows."""

BEYOND = 2
"""How far the ratchet moves on past a holder that is left behind: it may have the next token
on its disk and not have acknowledged it."""

PROVEN_AFTER = timedelta(minutes=3)
"""A link that is still there so long after an old token was shown has a living holder."""

DOUBTED_FOR = timedelta(hours=1)

_WORD = b"stead ratchet v1\0"
_NUMBER = 8
_MAC = 16


class Verdict(StrEnum):
    """What a holder is to be told."""

    CURRENT = "current"
    ROLLED_BACK = "rolled_back"
    RETURNED = "returned"
    WAIT = "wait"
    CLONE = "clone"
    CONTESTED = "contested"


ACCEPTED = frozenset({Verdict.CURRENT, Verdict.ROLLED_BACK, Verdict.RETURNED})


@dataclass(frozen=True, slots=True)
class Shown:
    """What a holder shows. `generation` is 0 when it has no token."""

    generation: int
    hardware: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a machine's ratchet. `generation` is 0 until a token was acknowledged.

    `former`: the hardware before this one. `awaited`: the old token whose holder is the
    machine all the same, `NOBODYS` for none. `settled`: the token, or the last of the tokens
    after the awaited one, whose holder is known to be a copy. Tokens above `fork_from` up to
    `fork_to` were given to a state of the machine that was put back since. `doubted_at`: when
    an old token was shown beside a link. `contested`: the old token that parked the machine, or
    that was last refused as a clone's.
    """

    generation: int = 0
    hardware: bytes = b""
    former: bytes = b""
    awaited: int = NOBODYS
    settled: int = NOBODYS
    fork_from: int = 0
    fork_to: int = 0
    doubted_at: datetime | None = None
    contested: int = NOBODYS


def token_of(key: bytes, machine: MachineId, generation: int) -> bytes:
    """A machine's token of this generation, 24 bytes."""
    number = generation.to_bytes(_NUMBER, "big")
    mac = hmac.digest(key, _WORD + machine.encode() + b"\0" + number, hashlib.sha256)
    return number + mac[:_MAC]


def generation_of(key: bytes, machine: MachineId, token: bytes) -> int:
    """Which generation a token is of: 0 for an empty one, `NEVER_OURS` for one not made here."""
    if not token:
        return 0
    if len(token) != _NUMBER + _MAC:
        return NEVER_OURS
    generation = int.from_bytes(token[:_NUMBER], "big")
    ours = hmac.compare_digest(token, token_of(key, machine, generation))
    return generation if ours and 0 < generation < 1 << 62 else NEVER_OURS


def judge(kept: Kept, shown: Shown, *, linked: bool, now: datetime) -> tuple[Verdict, Kept]:
    """What to tell a holder, and what to keep. `linked`: the machine holds a link already."""
    if kept.generation == 0 and shown.generation < 1:
        return Verdict.CURRENT, kept
    if shown.generation >= kept.generation:
        kept = acknowledged(kept, shown)
        return Verdict.CURRENT, replace(kept, doubted_at=None) if not linked else kept
    foreign = bool(kept.hardware and shown.hardware) and kept.hardware != shown.hardware
    if shown.generation == kept.awaited and not foreign:
        return Verdict.ROLLED_BACK, replace(kept, generation=kept.generation + BEYOND)
    if _is_settled(kept, shown.generation):
        return Verdict.CLONE, kept
    if foreign and shown.hardware != kept.former:
        return Verdict.CLONE, kept
    if foreign:
        # It moved to other hardware, and now the first computer comes back: so it was copied.
        return Verdict.RETURNED, replace(
            kept,
            generation=kept.generation + BEYOND,
            hardware=shown.hardware,
            former=b"",
            awaited=shown.generation,
            settled=kept.generation + 1,
        )
    known = bool(kept.hardware) and kept.hardware == shown.hardware
    if not known or kept.fork_from < shown.generation <= kept.fork_to:
        return Verdict.CONTESTED, replace(kept, contested=shown.generation, doubted_at=None)
    if linked:
        return _beside_a_link(kept, shown, now)
    return Verdict.ROLLED_BACK, replace(
        kept,
        generation=kept.generation + BEYOND,
        fork_from=shown.generation,
        fork_to=kept.generation + 1,
        doubted_at=None,
    )


def _is_settled(kept: Kept, generation: int) -> bool:
    """Whether a token is of a holder that is known to be a copy.

    With an awaited token it is all that was given out after that one; without one it is the
    very token that was contested. Older ones may be snapshots of the machine itself.
    """
    if kept.awaited == NOBODYS:
        return generation == kept.settled
    return kept.awaited < generation <= kept.settled


def _beside_a_link(kept: Kept, shown: Shown, now: datetime) -> tuple[Verdict, Kept]:
    """The link may be one that nobody holds any more, and is not yet known to be dead."""
    since = timedelta() if kept.doubted_at is None else now - kept.doubted_at
    if kept.doubted_at is None or not timedelta() <= since <= DOUBTED_FOR:
        return Verdict.WAIT, replace(kept, doubted_at=now)
    if since < PROVEN_AFTER:
        return Verdict.WAIT, kept
    return Verdict.CONTESTED, replace(kept, contested=shown.generation, doubted_at=None)


def acknowledged(kept: Kept, shown: Shown) -> Kept:
    """What to keep once a holder has made a token durable, as it says or as it shows."""
    if shown.generation <= kept.generation or shown.generation < 1:
        return kept
    kept = replace(kept, generation=shown.generation)
    if not shown.hardware or shown.hardware == kept.hardware:
        return kept
    # Back on the hardware of before: what it was on meanwhile is no part of the machine.
    former = b"" if shown.hardware == kept.former else kept.hardware
    return replace(kept, hardware=shown.hardware, former=former)


def approved(kept: Kept, *, older: bool) -> Kept:
    """What to keep once an operator says which holder of a parked machine it is.

    The other one is told that it is a clone when it comes, and makes itself a new machine.
    """
    if not older:
        return replace(kept, awaited=NOBODYS, settled=kept.contested, contested=NOBODYS)
    return replace(
        kept,
        generation=kept.generation + BEYOND,
        awaited=kept.contested,
        settled=kept.generation + 1,
        contested=NOBODYS,
    )
