"""Disks and what they are divided into: partitions, volumes, arrays, encrypted devices.

Source: `lsblk --json` (util-linux 2.27 or later), else the kernel's `/sys/block`. Loop,
RAM and optical devices are left out: they come and go with what is mounted in them.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from agent.host.process import ProgramError
from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources
from protocol.errors import Code, UnavailableError

COLUMNS = (
    "NAME,KNAME,TYPE,SIZE,MODEL,SERIAL,VENDOR,REV,ROTA,RO,RM,TRAN,WWN,FSTYPE,UUID"  # no mounts here
)
PASSING = re.compile(r"(?:loop|ram|zram|sr|fd|nbd)\d+\Z")
SECTOR_BYTES = 512


class Device(msgspec.Struct, frozen=True):
    """A block device; `parents` are the devices it lies on."""

    name: str
    kind: str
    size_bytes: int
    parents: list[str]
    model: str | None
    vendor: str | None
    serial: str | None
    firmware: str | None
    wwn: str | None
    transport: str | None
    rotational: bool
    removable: bool
    read_only: bool
    content: str | None
    uuid: str | None


class Disks(Facts, frozen=True, kw_only=True):
    """Block devices sorted by name."""

    source: Literal["lsblk", "sysfs", "cim", "system_profiler"]
    devices: list[Device]


def parse_lsblk(output: bytes) -> list[Device]:
    """Flatten the tree of `lsblk --json --bytes`; a device with two parents is one row.

    Raises `UnavailableError` when the output is not what lsblk prints.
    """
    try:
        tree = msgspec.json.decode(output.decode("utf-8", "backslashreplace"))
        roots = tree["blockdevices"]
        found: dict[str, Device] = {}
        for root in roots:
            _flatten(root, None, found)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"lsblk printed something unknown: {error}") from error
    return [found[name] for name in sorted(found)]


def _flatten(node: dict[str, Any], parent: str | None, found: dict[str, Device]) -> None:
    name = str(node["name"])
    if not PASSING.match(str(node.get("kname") or name)) and int(node["size"] or 0) > 0:
        before = found[name].parents if name in found else []
        parents = sorted({*before, *([parent] if parent else [])})
        found[name] = Device(
            name=name,
            kind=str(node["type"]),
            size_bytes=int(node["size"]),
            parents=parents,
            model=_said(node.get("model")),
            vendor=_said(node.get("vendor")),
            serial=_said(node.get("serial")),
            firmware=_said(node.get("rev")),
            wwn=_said(node.get("wwn")),
            transport=_said(node.get("tran")),
            rotational=_yes(node.get("rota")),
            removable=_yes(node.get("rm")),
            read_only=_yes(node.get("ro")),
            content=_said(node.get("fstype")),
            uuid=_said(node.get("uuid")),
        )
        parent = name
    for child in node.get("children", ()):
        _flatten(child, parent, found)


def _said(value: object) -> str | None:
    return (str(value).strip() or None) if value is not None else None


def _yes(value: object) -> bool:
    """True for JSON's true and for the "1" of older releases."""
    return value in (True, "1")


def devices_in_sysfs(sources: Sources) -> list[Device]:
    """Disks and partitions as the kernel lists them; raises `UnavailableError`."""
    found = []
    for name in sources.listed("/sys/block"):
        at = f"/sys/block/{name}"
        if PASSING.match(name) or not sources.number(f"{at}/size"):
            continue
        found.append(_device(sources, at, name, None))
        parts = [part for part in sources.listed(at) if sources.exists(f"{at}/{part}/partition")]
        found.extend(_device(sources, f"{at}/{part}", part, name) for part in parts)
    return sorted(found, key=lambda device: device.name)


def _device(sources: Sources, at: str, name: str, parent: str | None) -> Device:
    holder = f"/sys/block/{parent or name}"

    def own(*paths: str) -> str | None:
        """What a disk says of itself; a partition has nothing to say."""
        said = (sources.line(f"{at}/{path}") for path in paths if parent is None)
        return next(filter(None, said), None)

    return Device(
        name=name,
        kind="disk" if parent is None else "part",
        size_bytes=(sources.number(f"{at}/size") or 0) * SECTOR_BYTES,
        parents=[] if parent is None else [parent],
        model=own("device/model"),
        vendor=own("device/vendor"),
        serial=own("device/serial", "serial"),
        firmware=own("device/rev", "device/firmware_rev"),
        wwn=own("wwid", "device/wwid"),
        transport=None,
        rotational=sources.number(f"{holder}/queue/rotational") == 1,
        removable=sources.number(f"{holder}/removable") == 1,
        read_only=sources.number(f"{at}/ro") == 1,
        content=None,
        uuid=None,
    )


def collect(sources: Sources) -> Disks:
    """Ask lsblk; without it, say what the kernel says and that contents are unknown."""
    try:
        finished = sources.run("lsblk", "--json", "--bytes", "--output", COLUMNS)
        return Disks(source="lsblk", devices=parse_lsblk(finished.checked()))
    except (ProgramError, UnavailableError) as error:
        if error.code is Code.TIMED_OUT:
            raise
        gaps = dict.fromkeys(("content", "transport", "uuid"), str(error))
    return Disks(source="sysfs", devices=devices_in_sysfs(sources), gaps=gaps)


SECTION = Section("disks", 1, collect, every_s=3600)
