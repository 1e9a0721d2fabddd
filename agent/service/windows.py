"""The agent as a service of Windows: in the service control manager's list, and under it.

What is written into structures of winsvc.h is pure; the calls are empty on other systems.
"""

from __future__ import annotations

import struct
import sys

from agent.service.install import ABOUT, DISPLAY, NAME, RESTART_S, STOP_S

START_PENDING, STOP_PENDING, RUNNING, STOPPED = 2, 3, 4, 1
ACCEPTED = 1 | 4
"""To be stopped, and to be told when the machine ends."""
STOPPING = frozenset({1, 5})
"""What those are called when they come."""
FAILED = 1
"""The exit code of an agent that ended by an error; its log says which."""

_OWN_PROCESS = 0x10
_CALL_NOT_IMPLEMENTED = 120
_STATUS = struct.Struct("<7I")


def encode_status(state: int) -> bytes:
    """A `SERVICE_STATUS`. Nothing is accepted on the way.

    >>> _STATUS.unpack(encode_status(RUNNING))
    (16, 4, 5, 0, 0, 0, 0)
    """
    passing = state in (START_PENDING, STOP_PENDING)
    accepted = ACCEPTED if state == RUNNING else 0
    return _STATUS.pack(_OWN_PROCESS, state, accepted, 0, 0, 0, STOP_S * 1000 if passing else 0)


if sys.platform == "win32":
    import ctypes
    import os
    import subprocess
    import threading
    import time
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import contextmanager
    from ctypes import wintypes
    from typing import Final

    from protocol.errors import Code, SteadError

    _CONNECT_AND_CREATE: Final = 0x1 | 0x2
    _ALL: Final = 0xF01FF
    _AUTO_START: Final = 2
    _ERROR_NORMAL: Final = 1
    _CONTROL_STOP: Final = 1
    _INTERROGATE: Final = 4
    _DESCRIPTION, _FAILURE_ACTIONS = 1, 2
    _RESTART: Final = 1
    _NO_SUCH_SERVICE: Final = 1060
    _NOT_RUNNING: Final = 1062
    _ALREADY_RUNNING: Final = 1056

    class _Action(ctypes.Structure):
        """`SC_ACTION`."""

        _fields_ = (("kind", ctypes.c_int), ("delay_ms", wintypes.DWORD))

    class _FailureActions(ctypes.Structure):
        """`SERVICE_FAILURE_ACTIONSW`."""

        _fields_ = (
            ("reset_s", wintypes.DWORD),
            ("message", wintypes.LPWSTR),
            ("command", wintypes.LPWSTR),
            ("count", wintypes.DWORD),
            ("actions", ctypes.POINTER(_Action)),
        )

    _Main = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.c_void_p)
    _Handler = ctypes.WINFUNCTYPE(
        wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p
    )

    class _Entry(ctypes.Structure):
        """`SERVICE_TABLE_ENTRYW`."""

        _fields_ = (("name", wintypes.LPWSTR), ("main", _Main))

    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _handle, _word, _text, _room, _good = (
        wintypes.HANDLE,
        wintypes.DWORD,
        wintypes.LPCWSTR,
        ctypes.c_void_p,
        wintypes.BOOL,
    )
    for _name, _gives, _takes in (
        ("OpenSCManagerW", _handle, (_text, _text, _word)),
        ("OpenServiceW", _handle, (_handle, _text, _word)),
        ("CloseServiceHandle", _good, (_handle,)),
        (
            "CreateServiceW",
            _handle,
            (_handle, _text, _text, *[_word] * 4, _text, _text, _room, _text, _text, _text),
        ),
        (
            "ChangeServiceConfigW",
            _good,
            (_handle, *[_word] * 3, _text, _text, _room, _text, _text, _text, _text),
        ),
        ("ChangeServiceConfig2W", _good, (_handle, _word, _room)),
        ("StartServiceW", _good, (_handle, _word, _room)),
        ("ControlService", _good, (_handle, _word, _room)),
        ("QueryServiceStatus", _good, (_handle, _room)),
        ("DeleteService", _good, (_handle,)),
        ("StartServiceCtrlDispatcherW", _good, (_room,)),
        ("RegisterServiceCtrlHandlerExW", _handle, (_text, _Handler, _room)),
        ("SetServiceStatus", _good, (_handle, _room)),
    ):
        _function = getattr(_advapi, _name)
        _function.restype, _function.argtypes = _gives, _takes

    def _check(result: object, what: str, harmless: int = 0) -> None:
        number = ctypes.get_last_error()
        if not result and number != harmless:
            said = ctypes.FormatError(number).strip()
            raise SteadError(
                f"cannot {what} the service {NAME}: {said} (error {number})",
                code=Code.DENIED if number == 5 else Code.PRECONDITION,
            )

    @contextmanager
    def _closed(handle: int) -> Iterator[int]:
        try:
            yield handle
        finally:
            _advapi.CloseServiceHandle(handle)

    @contextmanager
    def _manager() -> Iterator[int]:
        manager = _advapi.OpenSCManagerW(None, None, _CONNECT_AND_CREATE)
        _check(manager, "look for")
        with _closed(manager):
            yield manager

    class WindowsOwnService:
        """See `OwnService`."""

        def install(self, argv: Sequence[str]) -> None:
            """See `OwnService`. Every word is quoted, so that no folder's blank ends the path."""
            line = subprocess.list2cmdline(argv)
            if not line.startswith('"'):
                line = f'"{argv[0]}"{line[len(argv[0]) :]}'
            with _manager() as manager:
                service = _advapi.OpenServiceW(manager, NAME, _ALL)
                if service:
                    with _closed(service):
                        self._stop(service)
                        change = _advapi.ChangeServiceConfigW(
                            service,
                            _OWN_PROCESS,
                            _AUTO_START,
                            _ERROR_NORMAL,
                            line,
                            *[None] * 6,
                        )
                        _check(change, "change")
                        self._settle(service)
                    return
                service = _advapi.CreateServiceW(
                    manager,
                    NAME,
                    DISPLAY,
                    _ALL,
                    _OWN_PROCESS,
                    _AUTO_START,
                    _ERROR_NORMAL,
                    line,
                    *[None] * 5,
                )
                _check(service, "make")
                with _closed(service):
                    self._settle(service)

        def _settle(self, service: int) -> None:
            """Say what it is, have it started again whenever it ends, and start it."""
            about = wintypes.LPWSTR(ABOUT)
            told = _advapi.ChangeServiceConfig2W(service, _DESCRIPTION, ctypes.byref(about))
            _check(told, "describe")
            actions = (_Action * 1)(_Action(_RESTART, RESTART_S * 1000))
            failure = _FailureActions(0, None, None, 1, actions)
            told = _advapi.ChangeServiceConfig2W(service, _FAILURE_ACTIONS, ctypes.byref(failure))
            _check(told, "have restarted")
            _check(_advapi.StartServiceW(service, 0, None), "start", _ALREADY_RUNNING)

        def uninstall(self) -> None:
            """See `OwnService`."""
            with _manager() as manager:
                service = _advapi.OpenServiceW(manager, NAME, _ALL)
                _check(service, "find", _NO_SUCH_SERVICE)
                if service:
                    with _closed(service):
                        self._stop(service)
                        _check(_advapi.DeleteService(service), "remove")

        @staticmethod
        def _stop(service: int) -> None:
            room = ctypes.create_string_buffer(_STATUS.size)
            _check(_advapi.ControlService(service, _CONTROL_STOP, room), "stop", _NOT_RUNNING)
            deadline = time.monotonic() + STOP_S
            while True:
                _check(_advapi.QueryServiceStatus(service, room), "look at")
                if _STATUS.unpack(room.raw)[1] == STOPPED:
                    return
                if time.monotonic() > deadline:
                    raise SteadError(
                        f"the service {NAME} has not stopped within {STOP_S} s",
                        code=Code.TIMED_OUT,
                    )
                time.sleep(0.1)

    def serve(work: Callable[[Callable[[Callable[[], None]], None]], None]) -> None:
        """Be the service until it is told to stop; PRECONDITION when nobody started it as one.

        `work` is the agent. It is given a function that takes what stops it.
        """
        stops: list[Callable[[], None]] = []
        status: list[int] = []
        told = threading.Event()

        def take(stop: Callable[[], None]) -> None:
            """The last one counts: an agent that begins anew has another loop."""
            stops[:] = [stop]
            if told.is_set():
                stop()

        def tell(state: int) -> None:
            _advapi.SetServiceStatus(status[0], encode_status(state))

        def handle(control: int, _kind: int, _data: object, _context: object) -> int:
            if control not in STOPPING:
                return 0 if control == _INTERROGATE else _CALL_NOT_IMPLEMENTED
            if not told.is_set():
                tell(STOP_PENDING)
                told.set()
                for stop in stops:
                    stop()
            return 0

        handler = _Handler(handle)

        def be(_count: int, _words: object) -> None:
            status.append(_advapi.RegisterServiceCtrlHandlerExW(NAME, handler, None))
            tell(RUNNING)
            try:
                work(take)
            except BaseException:  # noqa: BLE001 - whatever it was, it is in the log
                # Who just ends is started again at once; who says that it stopped, even by a
                # failure, is not before the system itself has been started anew.
                os._exit(FAILED)
            tell(STOPPED)

        # All of it lives as long as the dispatcher, which returns when the service has stopped.
        table = (_Entry * 2)(_Entry(NAME, _Main(be)), _Entry(None, _Main()))
        _check(_advapi.StartServiceCtrlDispatcherW(ctypes.byref(table)), "be")
