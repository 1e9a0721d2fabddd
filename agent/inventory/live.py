"""Live figures for a snapshot: what a machine is busy with at this moment.

They change from second to second, so they are asked for and shown, never kept as a
section. What cannot be had is null or missing, and `gaps` says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import msgspec

from agent.host import clock
from agent.inventory.section import inert
from agent.inventory.sections.filesystems import parse_mounts
from agent.inventory.sections.memory import parse_meminfo
from agent.inventory.sections.services import BOOTED_BY_SYSTEMD, LIST, parse_units
from agent.inventory.sources import Sources, decode
from protocol.errors import SteadError, UnavailableError

T = TypeVar("T")
INTERVAL = timedelta(milliseconds=300)
TOP = 5


class Load(msgspec.Struct, frozen=True):
    """Mean number of tasks that ran or waited, over 1, 5 and 15 minutes."""

    one: float
    five: float
    fifteen: float


class Space(msgspec.Struct, frozen=True):
    """How full something is."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


class DiskUse(msgspec.Struct, frozen=True):
    """How full the file system at a path is."""

    path: str
    device: str
    space: Space


class Process(msgspec.Struct, frozen=True):
    """A process; 100 percent is one processor. Arguments are left out: they hold secrets."""

    pid: int
    name: str
    user: str
    cpu_percent: float
    memory_bytes: int


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of one moment; `cpu_percent` is of all processors together."""

    at: str
    uptime_s: int | None
    load: Load | None
    cpu_percent: float | None
    memory: Space | None
    swap: Space | None
    disks: list[DiskUse]
    by_cpu: list[Process]
    by_memory: list[Process]
    failed_services: list[str] | None
    gaps: dict[str, str] = {}


class Usage(msgspec.Struct, frozen=True):
    """What one process has used when it was looked at: seconds of processor, bytes."""

    pid: int
    started: float
    name: str
    user: str
    cpu_s: float
    memory_bytes: int


def live(
    sources: Sources,
    *,
    interval: timedelta = INTERVAL,
    wait: Callable[[float], object] = time.sleep,
    processes: Callable[[], list[Usage]] | None = None,
) -> Live:
    """Look twice, `interval` apart, since use of the processor is a difference.

    Raises `UnavailableError` where there is no `/proc`.
    """
    gaps: dict[str, str] = {}
    look = processes or running_processes
    began, before, stat_before = clock.monotonic(), look(), sources.text("/proc/stat")
    wait(interval.total_seconds())
    after, stat_after = look(), sources.text("/proc/stat")
    rows = rates(before, after, seconds=clock.monotonic() - began)
    memory, swap = spaces(sources.text("/proc/meminfo"))
    return Live(
        at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        uptime_s=_or_gap(gaps, "uptime", lambda: int(_numbers(sources, "/proc/uptime")[0])),
        load=_or_gap(gaps, "load", lambda: Load(*_numbers(sources, "/proc/loadavg")[:3])),
        cpu_percent=busy_percent(stat_before, stat_after),
        memory=memory,
        swap=swap,
        disks=_disks(sources, gaps),
        by_cpu=top(rows, by=lambda row: row.cpu_percent),
        by_memory=top(rows, by=lambda row: row.memory_bytes),
        failed_services=_or_gap(gaps, "failed_services", lambda: _failed(sources)),
        gaps=gaps,
    )


def encode_live(figures: Live) -> bytes:
    """The figures as canonical JSON, with every string made harmless; see `section.inert`."""
    return msgspec.json.encode(inert(msgspec.to_builtins(figures)), order="deterministic")


def busy_percent(before: str, after: str) -> float | None:
    r"""Share of time that the processors were busy between two looks at `/proc/stat`.

    The first line counts user, nice, system, idle, iowait, irq, softirq and steal; guest
    time is in user already. None when no time has passed.

    >>> busy_percent("cpu  0 0 0 0 0 0 0 0\n", "cpu  30 0 0 60 10 0 0 0\n")
    30.0
    """
    first, second = (
        [int(word) for word in text.split("\n", 1)[0].split()[1:9]] for text in (before, after)
    )
    passed = [now - then for then, now in zip(first, second, strict=True)]
    if sum(passed) <= 0:
        return None
    return round(100 * (1 - sum(passed[3:5]) / sum(passed)), 1)


def spaces(meminfo: str) -> tuple[Space | None, Space | None]:
    """Memory and swap; what programs could get without swapping counts as free."""
    sizes = parse_meminfo(meminfo)

    def space(total: str, free: str) -> Space | None:
        if total not in sizes or free not in sizes:
            return None
        return Space(sizes[total], sizes[total] - sizes[free], sizes[free])

    return space("MemTotal", "MemAvailable"), space("SwapTotal", "SwapFree")


def rates(before: Iterable[Usage], after: Iterable[Usage], *, seconds: float) -> list[Process]:
    """Processes with the processor time they used in between; a new one counts from zero.

    `seconds` lie between the two looks, and are more than 0.
    """
    known = {(usage.pid, usage.started): usage.cpu_s for usage in before}
    return [
        Process(
            pid=usage.pid,
            name=usage.name,
            user=usage.user,
            cpu_percent=round(
                100 * max(usage.cpu_s - known.get((usage.pid, usage.started), 0.0), 0) / seconds, 1
            ),
            memory_bytes=usage.memory_bytes,
        )
        for usage in after
    ]


def top(
    rows: Iterable[Process], *, by: Callable[[Process], float], count: int = TOP
) -> list[Process]:
    """The processes with most of something, and none that has nothing of it."""
    return sorted((row for row in rows if by(row) > 0), key=lambda row: (-by(row), row.pid))[:count]


def running_processes() -> list[Usage]:
    """Every process that can be seen, as psutil tells it."""
    import psutil

    found = []
    wanted = ["pid", "create_time", "name", "username", "cpu_times", "memory_info"]
    for process in psutil.process_iter():
        try:
            said = process.as_dict(wanted, ad_value=None)
        except (psutil.NoSuchProcess, OSError):
            continue  # it has ended, or the system does not tell
        cpu, memory = said["cpu_times"], said["memory_info"]
        if cpu is None or memory is None:
            continue
        found.append(
            Usage(
                pid=said["pid"],
                started=said["create_time"] or 0.0,
                name=said["name"] or "",
                user=said["username"] or "",
                cpu_s=cpu.user + cpu.system,
                memory_bytes=memory.rss,
            )
        )
    return found


def _or_gap(gaps: dict[str, str], name: str, ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except SteadError as error:
        gaps[name] = str(error)
        return None


def _numbers(sources: Sources, path: str) -> list[float]:
    words = sources.text(path).split()
    try:
        return [float(word) for word in words if "/" not in word]
    except ValueError as error:
        raise UnavailableError(f"{path} holds something unknown") from error


def _disks(sources: Sources, gaps: dict[str, str]) -> list[DiskUse]:
    found = []
    for mount in parse_mounts(sources.text("/proc/self/mounts")):
        if mount.remote:
            gaps[mount.path] = "a remote file system is not asked: it could hang"
            continue
        try:
            full = sources.capacity(mount.path)
        except OSError as error:
            gaps[mount.path] = f"no figures: {error.strerror}"
            continue
        space = Space(full.total_bytes, full.used_bytes, full.free_bytes)
        found.append(DiskUse(mount.path, mount.device, space))
    return found


def _failed(sources: Sources) -> list[str]:
    if not sources.exists(BOOTED_BY_SYSTEMD):
        raise UnavailableError("only systemd knows which services failed, and it does not run here")
    listed = sources.run("systemctl", "list-units", "--state=failed", *LIST).checked()
    return sorted(unit.removesuffix(".service") for unit, *_ in parse_units(decode(listed)))
