"""Ask Windows, through kernel32 and advapi32, for bytes that the modules beside this read.

Written after the documentation of Windows and not yet run on it: nothing here decides, and
what decides is tried elsewhere with recorded bytes. On other systems the module is empty.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import os
    import struct
    from collections.abc import Iterator, Sequence
    from contextlib import contextmanager
    from ctypes import wintypes
    from functools import cache
    from typing import Final

    from agent.metadata.windows import basic, names, reparse, security, streams

    _INVALID: Final = ctypes.c_void_p(-1).value
    _SHARE_ALL: Final = 1 | 2 | 4
    _OPEN_EXISTING: Final = 3
    _AS_ITSELF: Final = 0x0200_0000 | 0x0020_0000  # backup semantics, open reparse point
    _READ_ATTRIBUTES: Final = 0x80
    _WRITE_ATTRIBUTES: Final = 0x100
    _READ_CONTROL: Final = 0x2_0000
    _WRITE_SECURITY: Final = 0x4_0000 | 0x8_0000  # the access list, the owner
    _SYSTEM_SECURITY: Final = 0x0100_0000
    _PARTS: Final = 1 | 2 | 4 | 0x10  # owner, group, access list, label
    _PRIVILEGE: Final = "SeSecurityPrivilege"
    _ADJUST_AND_QUERY: Final = 0x20 | 0x8
    _ENABLED: Final = 2
    _GET_REPARSE_POINT: Final = 0x0009_00A8
    _SET_REPARSE_POINT: Final = 0x0009_00A4
    _READ_DATA: Final = 0x8000_0000  # GENERIC_READ
    _WRITE_DATA: Final = 0x4000_0000  # GENERIC_WRITE
    _CREATE_ALWAYS: Final = 2
    _END: Final = 38  # ERROR_HANDLE_EOF: no more streams
    _NO_STREAMS: Final = 87  # ERROR_INVALID_PARAMETER: the file system has none
    _LONGEST_PATH: Final = 32_768

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _handle, _word, _text, _room = (
        wintypes.HANDLE,
        wintypes.DWORD,
        wintypes.LPCWSTR,
        ctypes.c_void_p,
    )
    for _library, _name, _gives, _takes in (
        (_kernel, "CreateFileW", _handle, (_text, _word, _word, _room, _word, _word, _handle)),
        (_kernel, "ReOpenFile", _handle, (_handle, _word, _word, _word)),
        (_kernel, "CloseHandle", wintypes.BOOL, (_handle,)),
        (_kernel, "GetFileInformationByHandleEx", wintypes.BOOL, (_handle, _word, _room, _word)),
        (_kernel, "SetFileInformationByHandle", wintypes.BOOL, (_handle, _word, _room, _word)),
        (_kernel, "GetFinalPathNameByHandleW", _word, (_handle, _room, _word, _word)),
        (_kernel, "FindFirstStreamW", _handle, (_text, _word, _room, _word)),
        (_kernel, "FindNextStreamW", wintypes.BOOL, (_handle, _room)),
        (_kernel, "FindClose", wintypes.BOOL, (_handle,)),
        (_kernel, "DeleteFileW", wintypes.BOOL, (_text,)),
        (
            _kernel,
            "DeviceIoControl",
            wintypes.BOOL,
            (_handle, _word, _room, _word, _room, _word, _room, _room),
        ),
        (
            _advapi,
            "GetKernelObjectSecurity",
            wintypes.BOOL,
            (_handle, _word, _room, _word, _room),
        ),
        (_advapi, "SetKernelObjectSecurity", wintypes.BOOL, (_handle, _word, _room)),
        (_kernel, "GetCurrentProcess", _handle, ()),
        (_advapi, "OpenProcessToken", wintypes.BOOL, (_handle, _word, _room)),
        (_advapi, "LookupPrivilegeValueW", wintypes.BOOL, (_text, _text, _room)),
        (
            _advapi,
            "AdjustTokenPrivileges",
            wintypes.BOOL,
            (_handle, wintypes.BOOL, _room, _word, _room, _room),
        ),
    ):
        _function = getattr(_library, _name)
        _function.restype, _function.argtypes = _gives, _takes

    def _check(result: object) -> None:
        if not result or result == _INVALID:
            raise ctypes.WinError(ctypes.get_last_error())

    @contextmanager
    def _reopened(fd: int, access: int) -> Iterator[int]:
        """A handle with other rights to what is open; a link is opened as itself."""
        handle = _kernel.ReOpenFile(msvcrt.get_osfhandle(fd), access, _SHARE_ALL, _AS_ITSELF)
        _check(handle)
        try:
            yield handle
        finally:
            _kernel.CloseHandle(handle)

    def _path(fd: int) -> str:
        """Where something open lies, in the form that may be longer than 260 characters."""
        room = ctypes.create_unicode_buffer(_LONGEST_PATH)
        length = _kernel.GetFinalPathNameByHandleW(msvcrt.get_osfhandle(fd), room, _LONGEST_PATH, 0)
        _check(0 < length < _LONGEST_PATH)
        return room.value

    def _units(name: bytes) -> str:
        """A name as Windows takes it."""
        return names.to_units(name).decode("utf-16-le", "surrogatepass")

    def _descriptor(handle: int, flags: int) -> int:
        """A descriptor in place of a handle, which it closes."""
        try:
            return msvcrt.open_osfhandle(handle, flags | os.O_BINARY)
        except OSError:
            _kernel.CloseHandle(handle)
            raise

    @cache
    def _is_privileged() -> bool:
        """Whether the process has the privilege of auditing; it is switched on for good then.

        Windows says of the call that it succeeded where the process has no such privilege, and
        tells that by the last error alone.
        """
        token, luid = wintypes.HANDLE(), ctypes.create_string_buffer(8)
        process = _kernel.GetCurrentProcess()
        _check(_advapi.OpenProcessToken(process, _ADJUST_AND_QUERY, ctypes.byref(token)))
        try:
            _check(_advapi.LookupPrivilegeValueW(None, _PRIVILEGE, luid))
            wanted = struct.pack("<I8sI", 1, luid.raw, _ENABLED)
            _check(_advapi.AdjustTokenPrivileges(token, 0, wanted, 0, None, None))
            return ctypes.get_last_error() == 0
        finally:
            _kernel.CloseHandle(token)

    class Native:
        """The calls themselves."""

        def may_audit(self) -> bool:
            """A service of Windows has the privilege, as administrators have."""
            return _is_privileged()

        def basic(self, fd: int) -> bytes:
            """By a handle that may read attributes."""
            room = ctypes.create_string_buffer(basic.BYTES)
            with _reopened(fd, _READ_ATTRIBUTES) as handle:
                _check(_kernel.GetFileInformationByHandleEx(handle, 0, room, len(room)))
            return room.raw

        def set_basic(self, fd: int, data: bytes) -> None:
            """By a handle that may write attributes."""
            with _reopened(fd, _WRITE_ATTRIBUTES) as handle:
                _check(_kernel.SetFileInformationByHandle(handle, 0, data, len(data)))

        def security(self, fd: int, *, auditing: bool) -> bytes:
            """By a handle that may read rules of auditing only where they are asked for."""
            room = ctypes.create_string_buffer(security.MAX_BYTES)
            needed = wintypes.DWORD()
            parts = _PARTS | (security.AUDITING if auditing else 0)
            access = _READ_CONTROL | (_SYSTEM_SECURITY if auditing else 0)
            with _reopened(fd, access) as handle:
                _check(
                    _advapi.GetKernelObjectSecurity(
                        handle, parts, room, len(room), ctypes.byref(needed)
                    )
                )
            return room.raw[: needed.value]

        def set_security(self, fd: int, parts: int, data: bytes) -> None:
            """Rules of auditing need a special privilege, and fail without it."""
            audits = bool(parts & security.AUDITING) and _is_privileged()
            access = _WRITE_SECURITY | (_SYSTEM_SECURITY if audits else 0)
            with _reopened(fd, access) as handle:
                _check(_advapi.SetKernelObjectSecurity(handle, parts, data))

        def reparse(self, fd: int) -> bytes:
            """Whole: there is at most 16 KiB of it."""
            room = ctypes.create_string_buffer(reparse.MAX_BYTES)
            filled = wintypes.DWORD()
            with _reopened(fd, _READ_ATTRIBUTES) as handle:
                _check(
                    _kernel.DeviceIoControl(
                        handle,
                        _GET_REPARSE_POINT,
                        None,
                        0,
                        room,
                        len(room),
                        ctypes.byref(filled),
                        None,
                    )
                )
            return room.raw[: filled.value]

        def set_reparse(self, fd: int, data: bytes) -> None:
            """Of an empty file or directory."""
            filled = wintypes.DWORD()
            with _reopened(fd, _WRITE_ATTRIBUTES) as handle:
                _check(
                    _kernel.DeviceIoControl(
                        handle,
                        _SET_REPARSE_POINT,
                        data,
                        len(data),
                        None,
                        0,
                        ctypes.byref(filled),
                        None,
                    )
                )

        def streams(self, fd: int) -> Sequence[bytes] | None:
            """By its path: Windows lists them in no other way that is documented."""
            room = ctypes.create_string_buffer(streams.FOUND_BYTES)
            handle = _kernel.FindFirstStreamW(_path(fd), 0, room, 0)
            if handle == _INVALID and ctypes.get_last_error() == _END:
                return ()
            if handle == _INVALID and ctypes.get_last_error() == _NO_STREAMS:
                return None
            _check(handle)
            found = [room.raw]
            try:
                while _kernel.FindNextStreamW(handle, room):
                    found.append(room.raw)
                if ctypes.get_last_error() != _END:
                    _check(0)
            finally:
                _kernel.FindClose(handle)
            return found

        def open_stream(self, fd: int, full: bytes, *, anew: bool) -> int:
            """By its path; the descriptor is one of bytes and not of lines."""
            access, how = (_WRITE_DATA, _CREATE_ALWAYS) if anew else (_READ_DATA, _OPEN_EXISTING)
            handle = _kernel.CreateFileW(
                _path(fd) + _units(full), access, _SHARE_ALL, None, how, _AS_ITSELF, None
            )
            _check(handle)
            return _descriptor(handle, os.O_WRONLY if anew else os.O_RDONLY)

        def remove_stream(self, fd: int, full: bytes) -> None:
            """By its path."""
            _check(_kernel.DeleteFileW(_path(fd) + _units(full)))

        def open_at(self, directory_fd: int, name: bytes) -> int:
            """Through the path of the directory, which Windows keeps from being renamed
            while something in it is open."""
            handle = _kernel.CreateFileW(
                f"{_path(directory_fd)}\\{_units(name)}",
                _READ_ATTRIBUTES | _READ_CONTROL,
                _SHARE_ALL,
                None,
                _OPEN_EXISTING,
                _AS_ITSELF,
                None,
            )
            _check(handle)
            return _descriptor(handle, os.O_RDONLY)
