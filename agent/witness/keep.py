"""The file in which a machine keeps, of each audit log that it watches, the last checkpoint.

Beside the checkpoints stand the alarms: what was told that did not fit. `agent.witness.watch`
says what is kept and what raises an alarm. A file that cannot be read any more is put aside
and never thrown away, since it may be evidence.
"""

from __future__ import annotations

from datetime import datetime
from itertools import count

from agent.config import AgentHome
from agent.host.files import read_if_there, sync_directory, write_atomically
from protocol.checkpoint import Found
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import TenantId
from protocol.witness import INSTALLATION, Alarm, Watched, decode_watched, encode_watched


class WitnessDamagedError(SteadError):
    """The file is there and does not hold what was written into it."""

    code = Code.PRECONDITION


def load_watched(home: AgentHome) -> Watched:
    """What this machine keeps; nothing before the first checkpoint.

    `WitnessDamagedError` for a file that is damaged, PRECONDITION for one that cannot be read.
    """
    data = read_if_there(home.witness)
    if data is None:
        return Watched()
    try:
        return decode_watched(data)
    except InvalidError as error:
        raise WitnessDamagedError(f"{home.witness} is damaged: {error}") from error


def write_watched(home: AgentHome, watched: Watched) -> None:
    """Replace the file, durably; STORE_FULL when that cannot be."""
    write_atomically(home.witness, encode_watched(watched))


def nothing_known(tenant: TenantId, now: datetime) -> Watched:
    """What there is to say of both logs when what was kept is lost."""
    watched = Watched()
    for log in (tenant, INSTALLATION):
        watched = watched.with_alarm(log, Found.LOST, b"", now)
    return watched


def put_aside(home: AgentHome) -> None:
    """Give the file a name of its own beside it: `witness.1`, `witness.2` and so on."""
    if not home.witness.exists():
        return
    free = (home.witness.with_name(f"{home.witness.name}.{number}") for number in count(1))
    target = next(path for path in free if not path.exists())
    try:
        home.witness.replace(target)
        sync_directory(home.path)
    except OSError as error:
        raise SteadError(
            f"cannot put {home.witness} aside: {error.strerror}", code=Code.STORE_FULL
        ) from error


def reset_watched(home: AgentHome) -> Watched:
    """Forget everything, and say what it was as far as it can be read. The file is put aside."""
    try:
        watched = load_watched(home)
    except WitnessDamagedError:
        watched = Watched()
    put_aside(home)
    return watched


def render_alarm(log_id: str, alarm: Alarm) -> str:
    """An alarm in words."""
    words = {
        Found.FORKED: "another history was told than the one that was kept",
        Found.SHRUNK: "fewer entries were told than were kept",
        Found.UNSIGNED: "a checkpoint was told that nobody of this installation signed",
        Found.LOST: "the checkpoint that was kept is lost, since the file was damaged",
    }
    name = "the installation's audit log" if not log_id else "the tenant's audit log"
    what = words.get(alarm.found, alarm.found)
    return f"{name}: {what}, first at {alarm.at:%Y-%m-%d %H:%M:%S}Z, {alarm.times} times"
