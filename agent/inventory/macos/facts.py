"""The sections of macOS out of what its programs print. Pure.

`system_profiler -json` prints an object with a list for each data type that was asked for.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.parsers.expat import ExpatError

import msgspec

from agent.inventory.sections.disks import Device
from agent.inventory.sections.memory import Module
from agent.inventory.sections.network import Gateway, Resolver
from agent.inventory.sections.packages import Package
from agent.inventory.sections.services import Service
from agent.inventory.sections.system import Hardware, OperatingSystem
from protocol.errors import UNREADABLE, UnavailableError

Row = dict[str, Any]
_SIZE = re.compile(r"(\d+) (MB|GB|TB)")
_UNITS = {"MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_NUMBERED = re.compile(r"\s*(nameserver|search domain)\[\d+\] : (\S+)")


def parse_profile(output: bytes) -> Mapping[str, list[Row]]:
    """What `system_profiler -json` prints; raises `UnavailableError` for anything else."""
    try:
        return msgspec.json.decode(output, type=dict[str, list[Row]])
    except UNREADABLE as error:
        raise UnavailableError(f"system_profiler printed something unknown: {error}") from error


def operating_system(version: str) -> OperatingSystem:
    """macOS by its version."""
    return OperatingSystem(
        id="macos", like=[], name=f"macOS {version}", version=version, codename=None, variant=None
    )


def hardware_of(rows: list[Row]) -> Hardware:
    """The maker's plate, from `SPHardwareDataType`."""
    row = rows[0] if rows else {}
    return Hardware(
        vendor="Apple",
        product=_text(row, "machine_model"),
        serial=_text(row, "serial_number"),
        uuid=_text(row, "platform_UUID"),
        bios_version=_text(row, "boot_rom_version"),
        bios_date=None,
    )


def modules_of(rows: list[Row]) -> list[Module]:
    """Memory modules, from `SPMemoryDataType`: in slots, or soldered in as one."""
    found = []
    for row in [inner for outer in rows for inner in (outer.get("_items") or [outer])]:
        size = _size(_text(row, "dimm_size") or _text(row, "SPMemoryDataType") or "")
        found.append(
            Module(
                slot=_text(row, "_name") or "",
                size_bytes=size,
                kind=_text(row, "dimm_type"),
                speed=_text(row, "dimm_speed"),
                manufacturer=_text(row, "dimm_manufacturer"),
                part=_text(row, "dimm_part_number"),
                serial=_text(row, "dimm_serial_number"),
            )
        )
    return sorted(found, key=lambda module: module.slot)


def _size(words: str) -> int:
    """Bytes of `8 GB`; 0 for an empty slot."""
    match = _SIZE.fullmatch(words)
    return int(match[1]) * _UNITS[match[2]] if match else 0


def devices_of(profile: Mapping[str, list[Row]]) -> list[Device]:
    """Whole disks, from `SPNVMeDataType` and `SPSerialATADataType`: controllers with disks."""
    found = []
    for kind, transport in (("SPNVMeDataType", "nvme"), ("SPSerialATADataType", "sata")):
        for controller in profile.get(kind, []):
            for row in controller.get("_items") or []:
                size = row.get("size_in_bytes")
                found.append(
                    Device(
                        name=_text(row, "bsd_name") or _text(row, "_name") or "",
                        kind="disk",
                        size_bytes=size if isinstance(size, int) else 0,
                        parents=[],
                        model=_text(row, "device_model"),
                        vendor=None,
                        serial=_text(row, "device_serial"),
                        firmware=_text(row, "device_revision"),
                        wwn=None,
                        transport=transport,
                        rotational=_text(row, "spsata_medium_type") == "Rotational",
                        removable=_text(row, "removable_media") == "yes",
                        read_only=False,
                        content=_text(row, "partition_map_type"),
                        uuid=None,
                    )
                )
    return sorted(found, key=lambda device: device.name)


def applications_of(rows: list[Row]) -> Iterator[Package]:
    """Applications, from `SPApplicationsDataType`. Those of macOS itself come with it."""
    for row in rows:
        name, source = _text(row, "_name"), _text(row, "obtained_from") or ""
        if name and source != "apple":
            version = _text(row, "version") or ""
            arch = (_text(row, "arch_kind") or "").removeprefix("arch_")
            yield Package("application", name, arch, version, source, version)


def receipts_of(output: bytes) -> Iterator[Package]:
    """Packages, from `pkgutil --regexp --pkg-info-plist .*`: property lists one after another."""
    for part in output.split(b"</plist>"):
        if b"<plist" not in part:
            continue
        try:
            row = plistlib.loads(part[part.index(b"<") :] + b"</plist>")
        except (ValueError, ExpatError, plistlib.InvalidFileException) as error:
            raise UnavailableError(f"pkgutil printed something unknown: {error}") from error
        name, version = row.get("pkgid"), row.get("pkg-version")
        if isinstance(name, str) and not name.startswith("com.apple.pkg."):
            told = version if isinstance(version, str) else ""
            yield Package("pkgutil", name, "", told, name, told)


def services_of(
    listed: str, disabled: Mapping[str, bool], described: Iterable[str]
) -> list[Service]:
    """Daemons, from `launchctl list` (PID, last exit code, label), the labels that are disabled,
    and the labels that have a file. One that stands still is started when it is needed.
    """
    found = {}
    for line in listed.splitlines()[1:]:
        pid, _, rest = line.partition("\t")
        code, _, label = rest.partition("\t")
        if label:
            failed = pid == "-" and code not in ("0", "-")
            state = "running" if pid != "-" else "failed" if failed else "on demand"
            start = "disabled" if disabled.get(label) else "enabled"
            found[label] = Service(label, start, state, "")  # type: ignore[arg-type]
    for label in described:
        if label not in found:
            start = "disabled" if disabled.get(label) else "enabled"
            found[label] = Service(label, start, "stopped", "")
    return sorted(found.values())


def gateways_of(output: str) -> list[Gateway]:
    """Default routes, from `netstat -rn`: destination, gateway, flags, interface."""
    found = set()
    for line in output.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "default" and not words[1].startswith("link#"):
            found.add(Gateway(words[1].partition("%")[0], words[3]))
    return sorted(found)


def resolver_of(output: str) -> Resolver:
    """Name servers, from the first resolver that `scutil --dns` prints."""
    first = output.partition("resolver #1")[2].partition("resolver #2")[0]
    told = [(match[1], match[2]) for match in map(_NUMBERED.fullmatch, first.splitlines()) if match]
    return Resolver(
        servers=[value for name, value in told if name == "nameserver"],
        search=[value for name, value in told if name == "search domain"],
    )


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return value.strip() or None if isinstance(value, str) else None
