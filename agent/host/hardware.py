"""What tells this computer from others of its kind, as a hash.

A copy of a disk on another computer, or of a virtual machine under another number, has
another one; a machine that was put back to a snapshot has the same. Nothing secret: whoever
may look at the hardware can make it. Empty where the system tells nothing, as in containers.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

_FILES = (
    "class/dmi/id/product_uuid",
    "class/dmi/id/product_serial",
    "class/dmi/id/board_serial",
    "firmware/devicetree/base/serial-number",
)
_NETWORK = "class/net"
_PAIR = re.compile(r'"(\w+)" = "([^"]*)"')
_WORD = b"stead hardware v1"
# What makers write who number nothing.
_EMPTY = frozenset(
    {
        "",
        "0",
        "none",
        "default string",
        "not applicable",
        "not specified",
        "not settable",
        "to be filled by o.e.m.",
        "system serial number",
        "03000200-0400-0500-0006-000700080009",
    }
)


def hardware(system: Path = Path("/sys")) -> bytes:
    """32 bytes, or none. `system` is where Linux shows its devices.

    Numbers of the board count; only where there are none, the addresses of network adapters,
    since those come and go with docks.
    """
    found = [text for text in _numbers(system) if _tells(text)]
    if not found and sys.platform == "linux":
        found = _addresses(system / _NETWORK)
    if not found:
        return b""
    return hashlib.sha256(b"\0".join([_WORD, *(text.encode() for text in found)])).digest()


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from agent.host.smbios import numbers_of

    _TABLES = int.from_bytes(b"RSMB", "big")

    def _numbers(system: Path) -> list[str]:
        """By the firmware's own tables, which anybody may read."""
        del system
        ask = ctypes.WinDLL("kernel32").GetSystemFirmwareTable
        ask.restype = wintypes.UINT
        ask.argtypes = (wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, wintypes.DWORD)
        room = ctypes.create_string_buffer(ask(_TABLES, 0, None, 0))
        size = ask(_TABLES, 0, room, len(room))
        return [text.lower() for text in numbers_of(room.raw[: min(size, len(room))])]

elif sys.platform == "darwin":
    from agent.host.process import ProgramError, run

    def _numbers(system: Path) -> list[str]:
        """By what the platform's own entry in the registry of devices says."""
        del system
        try:
            told = run("ioreg", "-rd1", "-c", "IOPlatformExpertDevice", timeout=10.0).checked()
        except ProgramError:
            return []
        return parse_platform(told.decode(errors="replace"))

else:

    def _numbers(system: Path) -> list[str]:
        """By what the kernel shows of the firmware."""
        return [_text(system / name) for name in _FILES]


def parse_platform(output: str) -> list[str]:
    """The UUID and the serial number of a Mac, as `ioreg` prints them.

    >>> parse_platform('  "IOPlatformUUID" = "AB-1"\\n  "IOPlatformSerialNumber" = "C02X"\\n')
    ['ab-1', 'c02x']
    """
    found = dict(_PAIR.findall(output))
    names = ("IOPlatformUUID", "IOPlatformSerialNumber")
    return [found[name].lower() for name in names if name in found]


def _addresses(folder: Path) -> list[str]:
    """The addresses of adapters that are devices, not bridges, tunnels and the like."""
    try:
        adapters = sorted(folder.iterdir())
    except OSError:
        return []
    texts = [_text(one / "address") for one in adapters if (one / "device").exists()]
    return sorted(text for text in texts if _tells(text))


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:256].decode("utf-8", "replace").strip("\0 \n\t").lower()
    except OSError:
        return ""


def _tells(text: str) -> bool:
    return text not in _EMPTY and bool(set(text) - set("0-: f.x"))
