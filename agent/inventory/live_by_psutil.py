"""Live figures where there is no /proc, by psutil alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import psutil

from agent.host import clock
from agent.inventory.by_psutil import filesystems, may_be_told
from agent.inventory.live import (
    INTERVAL,
    DiskUse,
    Live,
    Load,
    Space,
    Usage,
    rates,
    running_processes,
    top,
)
from agent.inventory.sources import Sources


def live_by_psutil(
    sources: Sources,
    *,
    interval: timedelta = INTERVAL,
    wait: Callable[[float], object] = time.sleep,
) -> Live:
    """See `agent.inventory.live.live`."""
    gaps = {"failed_services": "the section `services` has what failed, where that is known"}
    psutil.cpu_percent()
    began, before = (
        clock.monotonic(),
        may_be_told(gaps, "processes", running_processes, list[Usage]()),
    )
    wait(interval.total_seconds())
    after = may_be_told(gaps, "processes", running_processes, list[Usage]())
    rows = rates(before, after, seconds=clock.monotonic() - began)
    memory = psutil.virtual_memory()
    return Live(
        at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        uptime_s=round(clock.now().timestamp() - psutil.boot_time()),
        load=may_be_told(gaps, "load", lambda: Load(*psutil.getloadavg()), None),
        cpu_percent=psutil.cpu_percent(),
        memory=Space(memory.total, memory.total - memory.available, memory.available),
        swap=may_be_told(gaps, "swap", _swap, None),
        disks=_disks(sources, gaps),
        by_cpu=top(rows, by=lambda row: row.cpu_percent),
        by_memory=top(rows, by=lambda row: row.memory_bytes),
        failed_services=None,
        gaps=gaps,
    )


def _swap() -> Space | None:
    found = psutil.swap_memory()
    return Space(found.total, found.used, found.free)


def _disks(sources: Sources, gaps: dict[str, str]) -> list[DiskUse]:
    found = []
    for mount in filesystems(sources).mounts:
        if mount.remote:
            gaps[mount.path] = "a remote file system is not asked: it could hang"
            continue

        def asked(path: str = mount.path) -> Space:
            full = sources.capacity(path)
            return Space(full.total_bytes, full.used_bytes, full.free_bytes)

        space = may_be_told(gaps, mount.path, asked, None)
        if space is not None:
            found.append(DiskUse(mount.path, mount.device, space))
    return found
