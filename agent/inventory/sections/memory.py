"""Memory: how much the kernel has, swap areas, and the modules that are plugged in.

Formats: proc_meminfo(5), proc_swaps(5), and `dmidecode --type 17` (SMBIOS memory device).
"""

from __future__ import annotations

import re

import msgspec

from agent.host.process import ProgramError
from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources, decode
from protocol.errors import Code, UnavailableError

UNITS = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
SAYS_NOTHING = frozenset({"", "Unknown", "Not Specified", "None", "NO DIMM", "[Empty]"})


class Swap(msgspec.Struct, frozen=True, order=True):
    """A swap area."""

    path: str
    kind: str
    size_bytes: int


class Module(msgspec.Struct, frozen=True):
    """A memory module in its slot; an empty slot has the size 0."""

    slot: str
    size_bytes: int
    kind: str | None
    speed: str | None
    manufacturer: str | None
    part: str | None
    serial: str | None


class Memory(Facts, frozen=True, kw_only=True):
    """`modules` is null where they cannot be known; `gaps` says why."""

    total_bytes: int
    swap_total_bytes: int
    swaps: list[Swap]
    modules: list[Module] | None


def parse_meminfo(text: str) -> dict[str, int]:
    r"""Bytes by name.

    >>> parse_meminfo("MemTotal:   2 kB\nHugePages_Total: 7\n")
    {'MemTotal': 2048, 'HugePages_Total': 7}
    """
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (UNITS["kB"] if words[1:] == ["kB"] else 1)
    return found


def parse_swaps(text: str) -> list[Swap]:
    """The areas in `/proc/swaps`, by path; how full they are is left out."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return sorted(
        Swap(_unescape(row[0]), row[1], int(row[2]) * 1024)
        for row in rows
        if len(row) >= 3 and row[2].isdecimal()
    )


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def parse_modules(text: str) -> list[Module]:
    """The memory devices that `dmidecode --type 17` prints, in the order of their slots."""
    modules = []
    for block in re.split(r"^Memory Device$", text, flags=re.MULTILINE)[1:]:
        fields = {
            key.strip(): value.strip()
            for key, colon, value in (line.partition(":") for line in block.splitlines())
            if colon
        }
        bank, place = fields.get("Bank Locator", ""), fields.get("Locator", "")
        modules.append(
            Module(
                slot=" ".join(part for part in (bank, place) if part not in SAYS_NOTHING),
                size_bytes=parse_size(fields.get("Size", "")),
                kind=_said(fields, "Type"),
                speed=_said(fields, "Speed"),
                manufacturer=_said(fields, "Manufacturer"),
                part=_said(fields, "Part Number"),
                serial=_said(fields, "Serial Number"),
            )
        )
    return sorted(modules, key=lambda module: (module.slot, module.serial or ""))


def parse_size(text: str) -> int:
    """Bytes of a size as dmidecode prints it; 0 for an empty slot.

    >>> parse_size("16 GB"), parse_size("No Module Installed")
    (17179869184, 0)
    """
    words = text.split()
    if len(words) == 2 and words[0].isdecimal() and words[1] in UNITS:
        return int(words[0]) * UNITS[words[1]]
    return 0


def _said(fields: dict[str, str], name: str) -> str | None:
    value = fields.get(name, "")
    return None if value in SAYS_NOTHING else value


def collect(sources: Sources) -> Memory:
    """Read `/proc`, ask dmidecode where there are DMI tables."""
    sizes = parse_meminfo(sources.text("/proc/meminfo"))
    if "MemTotal" not in sizes:
        raise UnavailableError("/proc/meminfo names no total")
    gaps: dict[str, str] = {}
    return Memory(
        total_bytes=sizes["MemTotal"],
        swap_total_bytes=sizes.get("SwapTotal", 0),
        swaps=parse_swaps(sources.text("/proc/swaps")),
        modules=_modules(sources, gaps),
        gaps=gaps,
    )


def _modules(sources: Sources, gaps: dict[str, str]) -> list[Module] | None:
    if not sources.exists("/sys/firmware/dmi/tables"):
        gaps["modules"] = "the firmware offers no DMI tables"
        return None
    try:
        modules = parse_modules(decode(sources.run("dmidecode", "--type", "17").checked()))
    except ProgramError as error:
        if error.code is Code.TIMED_OUT:
            raise
        gaps["modules"] = str(error)
        return None
    if not modules:
        gaps["modules"] = "the DMI tables describe no memory device"
        return None
    return modules


SECTION = Section("memory", 1, collect, every_s=86400)
