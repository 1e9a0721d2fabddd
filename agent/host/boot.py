"""The name of the boot that this machine is in: another name is a restart, whatever clocks say."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.host.files import read_if_there

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_OF_WINDOWS = "wininit.exe"


def boot_id(path: Path = BOOT_ID) -> str:
    """The name of this boot; where the system gives none, the time of the start."""
    # Anybody may make such a path on a drive of Windows.
    told = read_if_there(path) if sys.platform == "linux" else None
    if told is not None:
        return told.decode().strip()
    return _by_system() or _by_time()


def _by_time() -> str:
    import psutil

    return f"{psutil.boot_time():.0f}"


if sys.platform == "win32":

    def _by_system() -> str:
        """When the first process of the system began: the time of the start itself is reckoned
        back from now on Windows, and moves whenever the clock is set.
        """
        import psutil

        for process in psutil.process_iter():
            try:
                if process.name().lower() == _FIRST_OF_WINDOWS:
                    return f"{process.create_time():.6f}"
            except (psutil.Error, OSError):
                continue
        return ""

elif sys.platform == "darwin":
    import ctypes

    def _by_system() -> str:
        """What the kernel has drawn for this boot; the time of the start moves with the clock."""
        room, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        library = ctypes.CDLL(None)
        if library.sysctlbyname(b"kern.bootsessionuuid", room, ctypes.byref(size), None, 0):
            return ""
        return room.value.decode(errors="replace")

else:

    def _by_system() -> str:
        """Linux has told it already, where it tells it."""
        return ""
