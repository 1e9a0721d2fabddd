"""Ask Windows' service control manager, through advapi32, for what psutil does not.

Nothing here decides. On other systems there is only the port.
"""

from __future__ import annotations

import sys
from typing import Protocol

STATUS_BYTES = 36
"""The length of a `SERVICE_STATUS_PROCESS`."""


class Scm(Protocol):
    """The service control manager. All raise `OSError` with `winerror`."""

    def status(self, name: str) -> bytes:
        """The `SERVICE_STATUS_PROCESS` of a service."""
        ...

    def start(self, name: str) -> None:
        """Have it started; this does not wait."""
        ...

    def stop(self, name: str) -> None:
        """Ask it to stop; this does not wait."""
        ...

    def set_start(self, name: str, kind: int) -> None:
        """Set how it starts: 2 by itself, 3 on demand, 4 not at all."""
        ...


if sys.platform == "win32":
    import ctypes
    from collections.abc import Iterator
    from contextlib import contextmanager
    from ctypes import wintypes
    from typing import Final

    _CONNECT: Final = 0x1
    _CHANGE_CONFIG: Final = 0x2
    _QUERY_STATUS: Final = 0x4
    _START: Final = 0x10
    _STOP: Final = 0x20
    _CONTROL_STOP: Final = 1
    _AS_IT_IS: Final = 0xFFFF_FFFF  # SERVICE_NO_CHANGE

    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _handle, _word, _text, _room = (
        wintypes.HANDLE,
        wintypes.DWORD,
        wintypes.LPCWSTR,
        ctypes.c_void_p,
    )
    for _name, _gives, _takes in (
        ("OpenSCManagerW", _handle, (_text, _text, _word)),
        ("OpenServiceW", _handle, (_handle, _text, _word)),
        ("CloseServiceHandle", wintypes.BOOL, (_handle,)),
        ("QueryServiceStatusEx", wintypes.BOOL, (_handle, ctypes.c_int, _room, _word, _room)),
        ("StartServiceW", wintypes.BOOL, (_handle, _word, _room)),
        ("ControlService", wintypes.BOOL, (_handle, _word, _room)),
        (
            "ChangeServiceConfigW",
            wintypes.BOOL,
            (_handle, _word, _word, _word, _text, _text, _room, _text, _text, _text, _text),
        ),
    ):
        _function = getattr(_advapi, _name)
        _function.restype, _function.argtypes = _gives, _takes

    def _check(result: object) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    @contextmanager
    def _service(name: str, access: int) -> Iterator[int]:
        manager = _advapi.OpenSCManagerW(None, None, _CONNECT)
        _check(manager)
        try:
            service = _advapi.OpenServiceW(manager, name, access)
            _check(service)
            try:
                yield service
            finally:
                _advapi.CloseServiceHandle(service)
        finally:
            _advapi.CloseServiceHandle(manager)

    class NativeScm:
        """See `Scm`."""

        def status(self, name: str) -> bytes:
            """See `Scm`."""
            room = ctypes.create_string_buffer(STATUS_BYTES)
            needed = wintypes.DWORD()
            with _service(name, _QUERY_STATUS) as service:
                _check(
                    _advapi.QueryServiceStatusEx(service, 0, room, len(room), ctypes.byref(needed))
                )
            return room.raw

        def start(self, name: str) -> None:
            """See `Scm`."""
            with _service(name, _START) as service:
                _check(_advapi.StartServiceW(service, 0, None))

        def stop(self, name: str) -> None:
            """See `Scm`."""
            before = ctypes.create_string_buffer(28)  # a SERVICE_STATUS, which is not looked at
            with _service(name, _STOP) as service:
                _check(_advapi.ControlService(service, _CONTROL_STOP, before))

        def set_start(self, name: str, kind: int) -> None:
            """See `Scm`."""
            with _service(name, _CHANGE_CONFIG) as service:
                _check(
                    _advapi.ChangeServiceConfigW(service, _AS_IT_IS, kind, _AS_IT_IS, *[None] * 7)
                )
