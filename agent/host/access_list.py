"""Folders of Windows that the system, administrators and their owner alone can enter.

On other systems a mode says that, and here is nothing.
"""

from __future__ import annotations

import re
import sys

PRIVATE = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"
"""Full control for LocalSystem, administrators and the owner, for all that comes to be in it
as well; nothing is inherited from above. In the language of [MS-DTYP] 2.5.1."""

_OURS = frozenset({"SY", "BA", "OW", "CO", "S-1-5-18", "S-1-5-32-544"})
_RULE = re.compile(r"\(([A-Z]+);[^;)]*;[^;)]*;[^;)]*;[^;)]*;([^;)]+)[^)]*\)")


def others_in(description: str, own: str) -> list[str]:
    """Whom an access list lets in besides the system, administrators and its owner `own`.

    `description` is in the language of [MS-DTYP] 2.5.1. Without a list everybody is let in.

    >>> others_in("O:BAD:AI(A;OICIID;FA;;;SY)(A;ID;0x1200a9;;;BU)", "S-1-5-21-1")
    ['BU']
    """
    _, found, rules = description.partition("D:")
    if not found or rules.startswith("NO_ACCESS_CONTROL"):
        return ["everybody"]
    allowed = [one[2] for one in _RULE.finditer(rules.partition("S:")[0]) if one[1] in ("A", "XA")]
    return sorted(set(allowed) - _OURS - {own})


if sys.platform == "win32":
    import ctypes
    from collections.abc import Iterator
    from contextlib import contextmanager
    from ctypes import wintypes
    from pathlib import Path
    from typing import Final

    from protocol.errors import Code, DeniedError, SteadError

    TRUSTED: Final = frozenset(
        {
            "S-1-5-18",  # LocalSystem
            "S-1-5-32-544",  # administrators
            "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",  # TrustedInstaller
        }
    )
    _REVISION: Final = 1
    _IS_FILE: Final = 1  # SE_FILE_OBJECT
    _OWNER: Final = 1  # OWNER_SECURITY_INFORMATION
    _ACCESS: Final = 4  # DACL_SECURITY_INFORMATION
    _ALREADY_THERE: Final = 183
    _QUERY_TOKEN: Final = 8
    _TOKEN_USER: Final = 1

    class _Attributes(ctypes.Structure):
        """`SECURITY_ATTRIBUTES`."""

        _fields_ = (
            ("length", wintypes.DWORD),
            ("descriptor", ctypes.c_void_p),
            ("inherit", wintypes.BOOL),
        )

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _room, _text, _word = ctypes.c_void_p, wintypes.LPCWSTR, wintypes.DWORD
    for _library, _name, _gives, _takes in (
        (_kernel, "CreateDirectoryW", wintypes.BOOL, (_text, _room)),
        (_kernel, "LocalFree", _room, (_room,)),
        (_kernel, "CloseHandle", wintypes.BOOL, (wintypes.HANDLE,)),
        (_kernel, "GetCurrentProcess", wintypes.HANDLE, ()),
        (
            _advapi,
            "ConvertStringSecurityDescriptorToSecurityDescriptorW",
            wintypes.BOOL,
            (_text, _word, _room, _room),
        ),
        (_advapi, "GetNamedSecurityInfoW", _word, (_text, ctypes.c_int, _word, *[_room] * 5)),
        (_advapi, "ConvertSidToStringSidW", wintypes.BOOL, (_room, _room)),
        (
            _advapi,
            "ConvertSecurityDescriptorToStringSecurityDescriptorW",
            wintypes.BOOL,
            (_room, _word, _word, _room, _room),
        ),
        (_advapi, "OpenProcessToken", wintypes.BOOL, (wintypes.HANDLE, _word, _room)),
        (
            _advapi,
            "GetTokenInformation",
            wintypes.BOOL,
            (wintypes.HANDLE, ctypes.c_int, _room, _word, _room),
        ),
    ):
        _function = getattr(_library, _name)
        _function.restype, _function.argtypes = _gives, _takes

    def _check(result: object) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    @contextmanager
    def _freed(pointer: ctypes.c_void_p) -> Iterator[ctypes.c_void_p]:
        try:
            yield pointer
        finally:
            _kernel.LocalFree(pointer)

    def make_private(path: Path) -> None:
        """Make a folder that is private from the start. One that is there stays as it is."""
        descriptor = ctypes.c_void_p()
        _check(
            _advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW(
                PRIVATE, _REVISION, ctypes.byref(descriptor), None
            )
        )
        with _freed(descriptor):
            attributes = _Attributes(ctypes.sizeof(_Attributes), descriptor, False)
            if not _kernel.CreateDirectoryW(str(path), ctypes.byref(attributes)):
                number = ctypes.get_last_error()
                if number != _ALREADY_THERE:
                    raise ctypes.WinError(number)

    @contextmanager
    def _secured(path: Path) -> Iterator[tuple[ctypes.c_void_p, ctypes.c_void_p]]:
        """The owner of a file or folder, and its descriptor with the access list."""
        owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
        number = _advapi.GetNamedSecurityInfoW(
            str(path),
            _IS_FILE,
            _OWNER | _ACCESS,
            ctypes.byref(owner),
            None,
            None,
            None,
            ctypes.byref(descriptor),
        )
        if number:
            raise ctypes.WinError(number)
        with _freed(descriptor):
            yield owner, descriptor

    def owner_of(path: Path) -> str:
        """Who owns a file or folder, as a SID. `OSError`."""
        with _secured(path) as (owner, _):
            return _sid_text(owner)

    def others_at(path: Path) -> list[str]:
        """Whom a file or folder lets in besides those who should be. `OSError`."""
        with _secured(path) as (_, descriptor):
            told = ctypes.c_void_p()
            _check(
                _advapi.ConvertSecurityDescriptorToStringSecurityDescriptorW(
                    descriptor, _REVISION, _OWNER | _ACCESS, ctypes.byref(told), None
                )
            )
            with _freed(told):
                return others_in(ctypes.wstring_at(told.value or 0), own_sid())

    def _sid_text(sid: ctypes.c_void_p) -> str:
        text = ctypes.c_void_p()
        _check(_advapi.ConvertSidToStringSidW(sid, ctypes.byref(text)))
        with _freed(text):
            return ctypes.wstring_at(text.value or 0)

    def own_sid() -> str:
        """Who runs this process, as a SID."""
        token = wintypes.HANDLE()
        _check(
            _advapi.OpenProcessToken(_kernel.GetCurrentProcess(), _QUERY_TOKEN, ctypes.byref(token))
        )
        try:
            room, needed = ctypes.create_string_buffer(1024), wintypes.DWORD()
            _check(
                _advapi.GetTokenInformation(
                    token, _TOKEN_USER, room, len(room), ctypes.byref(needed)
                )
            )
            # A TOKEN_USER begins with the address of the SID, which lies in the same room.
            return _sid_text(ctypes.c_void_p.from_buffer(room))
        finally:
            _kernel.CloseHandle(token)

    def check_owner(path: Path) -> None:
        """DENIED for a folder of somebody who must not own what lies in it.

        Everybody may make folders in ProgramData: one that was there before ours may be a
        trap, whose owner can put another in the place of what we make in it.
        """
        try:
            owner = owner_of(path)
        except OSError as error:
            raise SteadError(
                f"nobody can tell who owns {path}: {error.strerror}", code=Code.PRECONDITION
            ) from error
        if owner not in TRUSTED and owner != own_sid():
            raise DeniedError(f"{path} is owned by {owner}, who must not; remove it")
