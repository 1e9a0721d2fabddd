"""The backup set: a standing order, kept with its signatures and run by the agent itself.

Before each run the order is verified again, so that whoever can write the file cannot
have other paths backed up, and a machine whose settings have come to deny it stops.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from agent.config import AgentHome
from agent.host import clock
from agent.host.files import read_if_there, write_atomically
from agent.host.zone import local_zone
from agent.tasks.schedule import (
    Timetable,
    drill_period_of,
    timetable_of,
    timetable_of_drills,
)
from agent.tasks.verify import Believed, verify_standing
from protocol.action import RunBackup, RunDrill, SetBackup
from protocol.codec import decode_envelope, decode_order, encode_envelope
from protocol.errors import UNREADABLE, Code, DeniedError, InvalidError, NotFoundError, SteadError
from protocol.ids import MachineId, TaskId
from protocol.order import Envelope
from protocol.outcome import Outcome, OutcomeState
from protocol.schedule import parse_schedule

_SHOWN_RULES = (
    "exclude_caches",
    "one_file_system",
    "larger_than",
    "smaller_than",
    "older_than_s",
    "newer_than_s",
)
DRILL_AGAIN = timedelta(days=1)


class KeptSet(msgspec.Struct, frozen=True):
    """The file `backup.set`. The paths are here for others to read; the envelope counts."""

    paths: tuple[bytes, ...]
    schedule: str
    set_at: clock.Moment
    envelope: bytes
    spread_s: int = 0


class LastRun(msgspec.Struct, frozen=True):
    """The file `backup.runs`: when the set was last run, and how that ended."""

    at: clock.Moment
    state: str
    reason: str = ""


def load_set(home: AgentHome) -> KeptSet | None:
    """The backup set; None when there is none. Raises `InvalidError` when it is damaged."""
    data = read_if_there(home.backup_set)
    if data is None:
        return None
    try:
        return msgspec.msgpack.decode(data, type=KeptSet)
    except UNREADABLE as error:
        raise InvalidError(
            f"the backup set in {home.backup_set} is damaged: {error}; order it again with "
            "`stead backup set`"
        ) from error


def set_backup(
    home: AgentHome, task: TaskId, action: SetBackup, envelope: Envelope, *, now: datetime
) -> Outcome:
    """Replace the backup set by a verified order's.

    Raises REPLAYED for an order that is older than the one behind the present set: who
    carries orders must not choose between them by the order in which he brings them.
    """
    parse_schedule(action.schedule)
    drill_period_of(action.drills)
    if action.drills and not action.seal_to_machine:
        raise InvalidError("drills need restore points that this machine's own key opens")
    if (present := load_set(home)) is not None:
        signed_at = decode_order(decode_envelope(present.envelope).order).issued_at
        if decode_order(envelope.order).issued_at < signed_at:
            raise SteadError(
                f"the backup set in force was ordered later, at {signed_at:%Y-%m-%d %H:%M:%S}Z",
                code=Code.REPLAYED,
            )
    named = (*action.paths, *action.canaries)
    wrong = [path for path in named if not path.startswith(b"/") or b"\0" in path]
    if wrong:
        shown = wrong[0][:200].decode(errors="backslashreplace")
        raise InvalidError(f"{shown!r} is not an absolute path")
    from agent.backup.select.choose import lines_of
    from agent.backup.select.commands import check_commands
    from agent.backup.select.rule import read_rules
    from agent.backup.send.pace import checked_limit

    check_commands(action.commands, action.paths)
    if action.limit_upload:
        checked_limit(action.limit_upload)
    lines = lines_of(action.rules)
    read_rules(lines)
    kept = KeptSet(
        action.paths, action.schedule, now, encode_envelope(envelope), spread_s=action.spread_s
    )
    write_atomically(home.backup_set, msgspec.msgpack.encode(kept))
    result = {
        "paths": [path.decode(errors="backslashreplace") for path in action.paths],
        "schedule": action.schedule,
        "drills": action.drills,
        "limit_upload": action.limit_upload,
        "rules": {
            **{name: getattr(action.rules, name) for name in _SHOWN_RULES},
            "exclude": [line.decode(errors="backslashreplace") for line in lines],
        },
    }
    return Outcome(task, OutcomeState.SUCCEEDED, result=msgspec.json.encode(result))


def verified_set(home: AgentHome, believed: Believed) -> SetBackup:
    """The backup set as an operator signed it.

    Raises NOT_FOUND when there is none, and `SteadError` when it may not be run.
    """
    kept = load_set(home)
    if kept is None:
        raise NotFoundError("this machine has no backup set; order one with `stead backup set`")
    action = verify_standing(
        decode_envelope(kept.envelope), believed, taken_in_at=kept.set_at
    ).order.action
    if not isinstance(action, SetBackup):
        raise SteadError("the order behind the backup set is another one", code=Code.BAD_SIGNATURE)
    if "run_backup" in believed.deny:
        raise DeniedError("this machine's own settings do not allow run_backup")
    if action.commands.any and "run_program" in believed.deny:
        raise DeniedError(
            "the backup set runs programs, and this machine's own settings do not allow run_program"
        )
    if not action.paths:
        raise NotFoundError("this machine's backup set is empty; order another one")
    return action


def due_backup(home: AgentHome, believed: Believed, *, now: datetime) -> RunBackup | None:
    """The backup that is to be made now, if one is.

    Raises `SteadError` when there is a set that may not be run.
    """
    kept = load_set(home)
    if kept is None or not kept.paths:
        return None
    action = verified_set(home, believed)
    times = timetable_of(
        action.schedule, believed.identity.machine, local_zone(), spread_s=action.spread_s
    )
    if times is None or not times.is_due(now, last_begun(kept, last_run(home), now)):
        return None
    return backup_of(action)


def backup_of(backup_set: SetBackup) -> RunBackup:
    """A backup as a set has it, whole: its programs, its limit and its keys."""
    return RunBackup(
        backup_set.paths,
        backup_set.rules,
        seal_to_machine=backup_set.seal_to_machine,
        limit_upload=backup_set.limit_upload,
        commands=backup_set.commands,
    )


def due_drill(home: AgentHome, believed: Believed, *, now: datetime) -> RunDrill | None:
    """The drill that is to be made now, if one is.

    Raises `SteadError` when there is a set that may not be run.
    """
    kept = load_set(home)
    if kept is None or not kept.paths:
        return None
    action = verified_set(home, believed)
    period = drill_period_of(action.drills)
    if period is None or "run_drill" in believed.deny:
        return None
    last = last_drill(home)
    if last is not None and last.state != OutcomeState.SUCCEEDED:
        # Not before tomorrow: each one that was not good is told and kept.
        period = min(period, DRILL_AGAIN)
    times = timetable_of_drills(period, believed.identity.machine, local_zone())
    if not times.is_due(now, last_begun(kept, last, now)):
        return None
    return RunDrill(canaries=action.canaries)


def last_drill(home: AgentHome) -> LastRun | None:
    """The last drill by itself; None when there was none."""
    return _last(home.drill_runs)


def note_drill(home: AgentHome, run: LastRun) -> None:
    """Keep when a drill was last made."""
    write_atomically(home.drill_runs, msgspec.json.encode(run))


def last_begun(kept: KeptSet, last: LastRun | None, now: datetime) -> datetime:
    """When the set was last run, or when it was set if that was later.

    A set that is from the future was ordered while the clock was ahead: it must not
    hide the runs that were made since.
    """
    if last is None or last.at < kept.set_at <= now:
        return kept.set_at
    return last.at


def last_run(home: AgentHome) -> LastRun | None:
    """The last run by itself; None when there was none."""
    return _last(home.backup_runs)


def _last(path: Path) -> LastRun | None:
    data = read_if_there(path)
    try:
        return None if data is None else msgspec.json.decode(data, type=LastRun)
    except UNREADABLE:
        return None  # a run too many does no harm


def note_run(home: AgentHome, run: LastRun) -> None:
    """Keep when the set was last run."""
    write_atomically(home.backup_runs, msgspec.json.encode(run))


def next_run(home: AgentHome, machine: MachineId, *, now: datetime) -> datetime | None:
    """When the set will be run by itself; None when it will not be."""
    kept = load_set(home)
    times = None if kept is None else times_of(kept, machine)
    if kept is None or times is None:
        return None
    return now if times.is_due(now, last_begun(kept, last_run(home), now)) else times.next(now)


def times_of(kept: KeptSet, machine: MachineId) -> Timetable | None:
    """When a backup set is run by itself; None for one that is not."""
    return timetable_of(kept.schedule, machine, local_zone(), spread_s=kept.spread_s)
