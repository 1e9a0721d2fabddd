"""What runs here: operating system, kernel, names, identity, make of the machine.

Formats: os-release(5), proc_stat(5) (`btime`), machine-id(5), the kernel's
`/sys/class/dmi/id`.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources
from protocol.errors import UnavailableError

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
DMI = "/sys/class/dmi/id"


class OperatingSystem(msgspec.Struct, frozen=True):
    """The distribution, in the words of os-release(5)."""

    id: str
    like: list[str]
    name: str
    version: str | None
    codename: str | None
    variant: str | None


class Hardware(msgspec.Struct, frozen=True):
    """Maker's plate of the machine; null where the firmware does not say."""

    vendor: str | None = None
    product: str | None = None
    serial: str | None = None
    uuid: str | None = None
    bios_version: str | None = None
    bios_date: str | None = None


class System(Facts, frozen=True, kw_only=True):
    """Identity of the installation and of its present boot."""

    os: OperatingSystem
    kernel: str
    kernel_build: str | None
    arch: str
    hostname: str
    machine_id: str | None
    boot_id: str | None
    booted_at: str
    timezone: str | None
    hardware: Hardware | None


def parse_os_release(text: str) -> dict[str, str]:
    r"""Assignments of a file in os-release(5) format; lines that are none are passed over.

    >>> parse_os_release('ID=debian\nNAME="Debian GNU/Linux"\n# no\n')
    {'ID': 'debian', 'NAME': 'Debian GNU/Linux'}
    """
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or not key.isidentifier():
            continue
        try:
            found[key] = "".join(shlex.split(value))
        except ValueError:  # a quotation that does not end: keep what is written
            found[key] = value
    return found


def operating_system(values: dict[str, str]) -> OperatingSystem:
    """The distribution that os-release values describe; ID is `linux` when it is not given."""
    return OperatingSystem(
        id=values.get("ID", "linux"),
        like=values.get("ID_LIKE", "").split(),
        name=values.get("PRETTY_NAME") or values.get("NAME", "Linux"),
        version=values.get("VERSION_ID"),
        codename=values.get("VERSION_CODENAME"),
        variant=values.get("VARIANT_ID"),
    )


def parse_boot_time(stat: str) -> str:
    """When the kernel started, ISO 8601 in UTC, from `/proc/stat`.

    The kernel computes `btime` when asked and keeps it apart from the uptime, so it
    moves only when somebody steps the clock. Raises `UnavailableError` without one.
    """
    for line in stat.splitlines():
        word, _, value = line.partition(" ")
        if word == "btime" and value.strip().isdecimal():
            return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    raise UnavailableError("/proc/stat names no boot time")


def timezone_of(link: str) -> str | None:
    """The zone's name in the target of the link `/etc/localtime`.

    >>> timezone_of("../usr/share/zoneinfo/Europe/Berlin")
    'Europe/Berlin'
    """
    _, found, name = link.partition("/zoneinfo/")
    return name if found else None


def collect(sources: Sources) -> System:
    """Read it all from `/etc`, `/proc` and `/sys`."""
    gaps: dict[str, str] = {}
    return System(
        os=operating_system(parse_os_release(_os_release(sources))),
        kernel=sources.text("/proc/sys/kernel/osrelease").strip(),
        kernel_build=sources.line("/proc/sys/kernel/version"),
        arch=sources.arch,
        hostname=sources.text("/proc/sys/kernel/hostname").strip(),
        machine_id=_machine_id(sources, gaps),
        boot_id=sources.line("/proc/sys/kernel/random/boot_id"),
        booted_at=parse_boot_time(sources.text("/proc/stat")),
        timezone=_timezone(sources),
        hardware=_hardware(sources, gaps),
        gaps=gaps,
    )


def _os_release(sources: Sources) -> str:
    for path in OS_RELEASE:
        if sources.exists(path):
            return sources.text(path)
    raise UnavailableError(f"neither {OS_RELEASE[0]} nor {OS_RELEASE[1]} is here")


def _machine_id(sources: Sources, gaps: dict[str, str]) -> str | None:
    found = sources.line("/etc/machine-id") or sources.line("/var/lib/dbus/machine-id")
    if found is None or found == "uninitialized":
        gaps["machine_id"] = "/etc/machine-id is missing or was never filled in"
        return None
    return found


def _timezone(sources: Sources) -> str | None:
    try:
        return timezone_of(sources.link("/etc/localtime"))
    except OSError:  # a copy instead of a link, or none at all
        return sources.line("/etc/timezone")


def _hardware(sources: Sources, gaps: dict[str, str]) -> Hardware | None:
    if not sources.exists(DMI):
        model = sources.line("/sys/firmware/devicetree/base/model")
        if model is None:
            gaps["hardware"] = "the firmware offers neither DMI tables nor a device tree"
            return None
        serial = sources.line("/sys/firmware/devicetree/base/serial-number")
        return Hardware(product=model.rstrip("\0"), serial=serial and serial.rstrip("\0"))
    try:
        sources.read(f"{DMI}/product_serial", 0)
    except PermissionError:
        gaps["hardware.serial"] = gaps["hardware.uuid"] = "only root may read it"
    except OSError:  # some firmware has no such field: null says it
        pass
    return Hardware(
        vendor=sources.line(f"{DMI}/sys_vendor"),
        product=sources.line(f"{DMI}/product_name"),
        serial=sources.line(f"{DMI}/product_serial"),
        uuid=sources.line(f"{DMI}/product_uuid"),
        bios_version=sources.line(f"{DMI}/bios_version"),
        bios_date=sources.line(f"{DMI}/bios_date"),
    )


SECTION = Section("system", 1, collect, every_s=900)
