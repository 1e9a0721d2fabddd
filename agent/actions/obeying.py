"""Have the machine's own administrator stand above an action that works in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.actions.action import ActionResult, Workplace
from agent.backup.send.control import controlled
from protocol.outcome import OutcomeState


@contextmanager
def obeying(place: Workplace, ended: str) -> Iterator[None]:
    """Wait while paused, end when cancelled, and rest as `cpu_limit` says, for the block.

    Whoever goes on asks `place.control`. `ended` says what of it stays after a cancel.
    """
    place.control.share(place.home.load_settings().cpu_limit)

    def end(by: str) -> None:
        message = f"cancelled on the machine by {by}; {ended}"
        place.leave(ActionResult(OutcomeState.CANCELLED, message=message))

    def say(by: str) -> None:
        place.progress({"phase": "paused", "by": by})

    with controlled(place.home, place.control, end=end, say=say):
        place.control.hold(lambda: None)
        yield
