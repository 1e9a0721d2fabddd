"""Restart a machine or switch it off: tell who is there, wait, do it.

What became of it is seen by the next agent (`agent.power.record`): this process does not
live to tell. Until the system is told a cancel ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.actions.action import ActionResult, Workplace
from agent.host.boot import boot_id
from agent.host.process import run
from agent.power.machine import VERBS, Power, SystemPower, checked_notice
from agent.power.record import Phase, Record, keep_record
from protocol.action import ControlPower
from protocol.errors import Code, InvalidError, SteadError
from protocol.outcome import OutcomeState

LAST_CALL_S = 60
"""So long before, people are told once more."""
MOST_DELAY_S = 7 * 86400
STILL_UP_S = 900
"""A machine that was told to end and is there so much later does not end."""


def execute(action: ControlPower, place: Workplace) -> ActionResult:
    """Do it; returns only when it did not happen."""

    def wait(seconds: float) -> None:
        threading.Event().wait(seconds)

    return carry_out(action, place, SystemPower(run), wait)


def carry_out(
    action: ControlPower, place: Workplace, power: Power, wait: Callable[[float], None]
) -> ActionResult:
    """See the module. `wait` takes seconds. Raises `SteadError`."""
    if action.verb not in VERBS:
        raise InvalidError(f"{action.verb[:40]!r} is no way to end; {' and '.join(VERBS)} are")
    if action.delay_s > MOST_DELAY_S:
        raise InvalidError(f"it can be put off for {MOST_DELAY_S // 86400} days at most")
    notice = checked_notice(action.notice)
    record = Record(action.verb, boot_id(), Phase.WAITING)
    keep_record(place.home, place.task, record)
    for seconds in calls(action.delay_s):
        _tell(power, notice, action.verb, seconds, place)
        wait(seconds - LAST_CALL_S if seconds > LAST_CALL_S else seconds)
    place.control.settle()
    keep_record(place.home, place.task, Record(action.verb, record.boot, Phase.ORDERED))
    place.progress({"step": action.verb})
    power.act(action.verb, notice)
    wait(STILL_UP_S)
    return ActionResult(
        OutcomeState.FAILED,
        code=Code.PRECONDITION,
        message=f"the system was told to {action.verb}, and is still up {STILL_UP_S // 60} min "
        "later",
    )


def calls(delay_s: int) -> list[int]:
    """At how many seconds before the end people are told.

    >>> calls(300), calls(60), calls(0)
    ([300, 60], [60], [0])
    """
    return [delay_s, LAST_CALL_S] if delay_s > LAST_CALL_S else [delay_s]


def _tell(power: Power, notice: str, verb: str, seconds: int, place: Workplace) -> None:
    what = "restarts" if verb == "reboot" else "is switched off"
    when = "now" if not seconds else f"in {-(-seconds // 60)} min" if seconds >= 60 else "at once"
    try:
        power.tell("\n".join(filter(None, (notice, f"This machine {what} {when}."))))
    except SteadError as error:
        # Who is not told is no reason to leave a machine unpatched; the operator learns it.
        place.progress({"nobody_told": str(error)})
    place.progress({"step": f"waits {seconds} s"})


def tell_cancelled() -> None:
    """Tell who was told of an end that it does not come."""
    SystemPower(run).tell("It was cancelled: this machine stays as it is.")
