"""Windows' job objects: a program with all that it starts, which lives and ends together.

What a program starts is in its job from its first instruction on, and cannot leave it. The
job ends with the agent, however the agent ends: Windows closes what it held open.

How limits become the bytes of winnt.h is pure; the calls are empty on other systems.
"""

from __future__ import annotations

import struct
import sys

from protocol.limits import Limits

_EXTENDED = struct.Struct("<qqI4xQQI4xQII6QQQQQ")
"""`JOBOBJECT_EXTENDED_LIMIT_INFORMATION` of 64 bits."""
_CPU_RATE = struct.Struct("<II")
"""`JOBOBJECT_CPU_RATE_CONTROL_INFORMATION`: flags, and a rate in 1/10,000 of all processors."""

_PRIORITY = 0x20
_JOB_MEMORY = 0x200
_DIE_ON_UNHANDLED_EXCEPTION = 0x400
_KILL_ON_JOB_CLOSE = 0x2000
_BELOW_NORMAL, _IDLE = 0x4000, 0x40
_RATE_ENABLED, _RATE_HARD_CAP = 1, 4
_WHOLE = 10_000
IDLE_FROM_NICE = 10


def encode_limits(limits: Limits) -> bytes:
    """The limits of a job. A `nice` of ten and more is the class below the one below normal."""
    flags = _KILL_ON_JOB_CLOSE | _DIE_ON_UNHANDLED_EXCEPTION
    flags |= _JOB_MEMORY if limits.memory_bytes else 0
    flags |= _PRIORITY if limits.nice else 0
    kind = 0 if not limits.nice else _IDLE if limits.nice >= IDLE_FROM_NICE else _BELOW_NORMAL
    working = (0, 0, 0, 0)
    counters = (0, 0, 0, 0, 0, 0)
    return _EXTENDED.pack(0, 0, flags, *working, kind, 0, *counters, 0, limits.memory_bytes, 0, 0)


def encode_cpu_rate(percent: int, processors: int) -> bytes:
    """The most that a job gets of the processors; `percent` is of one of them.

    >>> _CPU_RATE.unpack(encode_cpu_rate(50, 4)), _CPU_RATE.unpack(encode_cpu_rate(900, 4))
    ((5, 1250), (5, 10000))
    """
    rate = min(max(percent * _WHOLE // (100 * processors), 1), _WHOLE)
    return _CPU_RATE.pack(_RATE_ENABLED | _RATE_HARD_CAP, rate)


if sys.platform == "win32":
    import ctypes
    import os
    from ctypes import wintypes
    from typing import Final

    _EXTENDED_LIMITS: Final = 9
    _CPU_RATE_CONTROL: Final = 15
    _SET_QUOTA_AND_TERMINATE: Final = 0x100 | 0x1
    _ENDED: Final = 1
    """The exit code of what is ended with its job."""

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _handle, _word, _room = wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p
    for _name, _gives, _takes in (
        ("CreateJobObjectW", _handle, (_room, wintypes.LPCWSTR)),
        ("SetInformationJobObject", wintypes.BOOL, (_handle, ctypes.c_int, _room, _word)),
        ("AssignProcessToJobObject", wintypes.BOOL, (_handle, _handle)),
        ("TerminateJobObject", wintypes.BOOL, (_handle, wintypes.UINT)),
        ("OpenProcess", _handle, (_word, wintypes.BOOL, _word)),
        ("CloseHandle", wintypes.BOOL, (_handle,)),
    ):
        _function = getattr(_kernel, _name)
        _function.restype, _function.argtypes = _gives, _takes

    def _check(result: object) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    class Job:
        """A job. All raise `OSError`; `close` and `end` also end what is in it."""

        def __init__(self, limits: Limits) -> None:
            self._handle = _kernel.CreateJobObjectW(None, None)
            _check(self._handle)
            self.missed: tuple[str, ...] = ()
            """Which limits could not be enforced, for people."""
            try:
                self._set(_EXTENDED_LIMITS, encode_limits(limits))
            except OSError:
                self.close()
                raise
            if limits.cpu_percent:
                rate = encode_cpu_rate(limits.cpu_percent, os.cpu_count() or 1)
                try:
                    self._set(_CPU_RATE_CONTROL, rate)
                except OSError as error:
                    self.missed = (
                        f"the processor was not limited to {limits.cpu_percent} %: "
                        f"{error.strerror}",
                    )

        def _set(self, kind: int, data: bytes) -> None:
            _check(_kernel.SetInformationJobObject(self._handle, kind, data, len(data)))

        def take_in(self, pid: int) -> None:
            """Put a process into the job; it must not have begun."""
            process = _kernel.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid)
            _check(process)
            try:
                _check(_kernel.AssignProcessToJobObject(self._handle, process))
            finally:
                _kernel.CloseHandle(process)

        def end(self) -> None:
            """End all that is in it."""
            _check(_kernel.TerminateJobObject(self._handle, _ENDED))

        def close(self) -> None:
            """Let go of it. Nothing outlives this."""
            _kernel.CloseHandle(self._handle)
