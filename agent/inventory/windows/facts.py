"""The sections of Windows out of what CIM classes answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.inventory.sections.disks import Device
from agent.inventory.sections.memory import Module
from agent.inventory.sections.network import Gateway, Resolver
from agent.inventory.sections.services import Service, State
from agent.inventory.sections.system import Hardware
from agent.inventory.windows.cim import number, text, texts

Row = dict[str, Any]
SYSTEM_PRODUCT = ("Vendor", "Name", "IdentifyingNumber", "UUID")
BIOS = ("SMBIOSBIOSVersion", "@{n='Date';e={$_.ReleaseDate.ToString('yyyy-MM-dd')}}")
PROCESSOR = ("Name", "Manufacturer", "MaxClockSpeed", "SocketDesignation")
MEMORY = (
    "DeviceLocator",
    "Capacity",
    "SMBIOSMemoryType",
    "Speed",
    "Manufacturer",
    "PartNumber",
    "SerialNumber",
)
DISK = (
    "DeviceID",
    "Size",
    "Model",
    "SerialNumber",
    "FirmwareRevision",
    "InterfaceType",
    "MediaType",
)
ADAPTER = (
    "Description",
    "IPEnabled",
    "DefaultIPGateway",
    "DNSServerSearchOrder",
    "DNSDomainSuffixSearchOrder",
)

_MEMORY_KINDS = {20: "DDR", 21: "DDR2", 24: "DDR3", 26: "DDR4", 34: "DDR5"}
_STARTS = {"automatic": "enabled", "manual": "on demand", "disabled": "disabled"}
_STATES: Mapping[str, State] = {"running": "running", "stopped": "stopped"}


def arch_of(machine: str) -> str:
    """The kind of processor in the words of other systems.

    >>> arch_of("AMD64"), arch_of("ARM64")
    ('x86_64', 'aarch64')
    """
    word = machine.lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(word, word)


def hardware_of(products: Sequence[Row], bioses: Sequence[Row]) -> Hardware:
    """The maker's plate, from `Win32_ComputerSystemProduct` and `Win32_BIOS`."""
    product, bios = (rows[0] if rows else {} for rows in (products, bioses))
    return Hardware(
        vendor=text(product, "Vendor"),
        product=text(product, "Name"),
        serial=text(product, "IdentifyingNumber"),
        uuid=text(product, "UUID"),
        bios_version=text(bios, "SMBIOSBIOSVersion"),
        bios_date=text(bios, "Date"),
    )


def modules_of(rows: Sequence[Row]) -> list[Module]:
    """Memory modules, from `Win32_PhysicalMemory`."""
    found = []
    for row in rows:
        speed = number(row, "Speed")
        found.append(
            Module(
                slot=text(row, "DeviceLocator") or "",
                size_bytes=number(row, "Capacity") or 0,
                kind=_MEMORY_KINDS.get(number(row, "SMBIOSMemoryType") or 0),
                speed=f"{speed} MT/s" if speed else None,
                manufacturer=text(row, "Manufacturer"),
                part=text(row, "PartNumber"),
                serial=text(row, "SerialNumber"),
            )
        )
    return sorted(found, key=lambda module: module.slot)


def devices_of(rows: Sequence[Row]) -> list[Device]:
    """Disks, from `Win32_DiskDrive`. It does not tell whether they turn."""
    found = []
    for row in rows:
        media = (text(row, "MediaType") or "").lower()
        found.append(
            Device(
                name=(text(row, "DeviceID") or "").removeprefix("\\\\.\\").lower(),
                kind="disk",
                size_bytes=number(row, "Size") or 0,
                parents=[],
                model=text(row, "Model"),
                vendor=None,
                serial=text(row, "SerialNumber"),
                firmware=text(row, "FirmwareRevision"),
                wwn=None,
                transport=(text(row, "InterfaceType") or "").lower() or None,
                rotational=False,
                removable="removable" in media or "external" in media,
                read_only=False,
                content=None,
                uuid=None,
            )
        )
    return sorted(found, key=lambda device: device.name)


def routes_of(rows: Sequence[Row]) -> tuple[list[Gateway], Resolver]:
    """Gateways and name servers, from `Win32_NetworkAdapterConfiguration`."""
    gateways, servers, search = set[Gateway](), list[str](), list[str]()
    for row in rows:
        if row.get("IPEnabled") is True:
            name = text(row, "Description") or ""
            gateways.update(Gateway(one, name) for one in texts(row, "DefaultIPGateway"))
            servers += texts(row, "DNSServerSearchOrder")
            search += texts(row, "DNSDomainSuffixSearchOrder")
    return sorted(gateways), Resolver(list(dict.fromkeys(servers)), list(dict.fromkeys(search)))


def service_of(name: str, display: str, start: str, status: str) -> Service:
    """A service as psutil describes it. One that is started on demand comes and goes."""
    word = _STARTS.get(start, start or "unknown")
    state: State = _STATES.get(status, "stopped")
    return Service(name, word, "on demand" if word == "on demand" else state, display)
