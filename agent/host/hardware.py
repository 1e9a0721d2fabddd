"""What tells this computer from others of its kind, as a hash.

A copy of a disk on another computer, or of a virtual machine under another number, has
another one; a machine that was put back to a snapshot has the same. Nothing secret: whoever
may look at the hardware can make it. Empty where the system tells nothing, as in containers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_FILES = (
    "class/dmi/id/product_uuid",
    "class/dmi/id/product_serial",
    "class/dmi/id/board_serial",
    "firmware/devicetree/base/serial-number",
)
_NETWORK = "class/net"
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
    """32 bytes, or none. `system` is where the kernel shows its devices.

    Numbers of the board count; only where there are none, the addresses of network adapters,
    since those come and go with docks.
    """
    found = [text for name in _FILES if _tells(text := _text(system / name))]
    if not found:
        found = _addresses(system / _NETWORK)
    if not found:
        return b""
    return hashlib.sha256(b"\0".join([_WORD, *(text.encode() for text in found)])).digest()


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
