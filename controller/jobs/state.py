"""The states of a task, and which may follow which.

    awaiting ──► waiting or queued, or an outcome

    waiting ◄─► queued ──► offered ──► running ──► an outcome
       │           │          └────────────────────────▲
       └───────────┴── expired, cancelled ─────────────┘

A task awaits while an operator has still to sign its order. It waits while its rollout has
no place for it; without a rollout it begins queued.

An outcome is the end, with one exception: when a machine was silent for too long, the
controller itself presumes `indeterminate`, and the truth may still replace that.
"""

from __future__ import annotations

from datetime import timedelta

from protocol.errors import Code
from protocol.outcome import OutcomeState

AWAITING = "awaiting"
WAITING = "waiting"
QUEUED = "queued"
OFFERED = "offered"
RUNNING = "running"
AT_WORK = (QUEUED, OFFERED, RUNNING)
UNDELIVERED = (AWAITING, WAITING, QUEUED)
OPEN = (AWAITING, WAITING, *AT_WORK)
PRESUMED = Code.UNAVAILABLE.value
"""The code of an outcome that the controller presumed."""

SILENCE = timedelta(hours=24)
"""How long a machine with an offered or running task may be silent before its end is
presumed: longer than a night in a laptop bag, shorter than a weekend of not knowing."""


def may_follow(state: str, code: str, following: str) -> bool:
    """True when a task in `state` (ended with `code`, if at all) may become `following`.

    >>> may_follow("offered", "", "running"), may_follow("succeeded", "", "failed")
    (True, False)
    """
    if following == OFFERED:
        return state in {QUEUED, OFFERED}
    if following == RUNNING:
        return state in OPEN
    if state in OPEN:
        return following in set(OutcomeState)
    return state == OutcomeState.INDETERMINATE and code == PRESUMED


def is_over(state: str) -> bool:
    """True when a task has its outcome."""
    return state not in OPEN
