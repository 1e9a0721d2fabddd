"""What stands in Windows' registry of this installation and of what was installed on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from agent.inventory.sections.packages import Package
from agent.inventory.sections.system import OperatingSystem

VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
CRYPTOGRAPHY = r"SOFTWARE\Microsoft\Cryptography"
UNINSTALL = {
    "x64": r"SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall",
    "x86": r"SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall",
}


class Registry(Protocol):
    """Keys below HKEY_LOCAL_MACHINE, as 64-bit programs see them. A missing one is empty."""

    def values(self, key: str) -> Mapping[str, Any]:
        """The values of a key by their names."""
        ...

    def keys(self, key: str) -> Sequence[str]:
        """The names of the keys in a key."""
        ...


def operating_system(values: Mapping[str, Any], version: str) -> OperatingSystem:
    """What the key `VERSION` says. Windows 11 calls itself 10 there, and tells itself by its
    build: 22000 was the first.
    """
    name = _text(values, "ProductName") or "Windows"
    build = version.rpartition(".")[2]
    if name.startswith("Windows 10") and build.isdecimal() and int(build) >= 22_000:
        name = name.replace("Windows 10", "Windows 11", 1)
    revision = values.get("UBR")
    return OperatingSystem(
        id="windows",
        like=[],
        name=name,
        version=f"{version}.{revision}" if isinstance(revision, int) else version,
        codename=_text(values, "DisplayVersion") or _text(values, "ReleaseId"),
        variant=_text(values, "EditionID"),
    )


def packages_of(registry: Registry) -> list[Package]:
    """What could be uninstalled. What belongs to another entry, or to the system, is left out."""
    found = set[Package]()
    for arch, key in UNINSTALL.items():
        for name in registry.keys(key):
            found.update(_package(registry.values(f"{key}\\{name}"), arch))
    return sorted(found)


def _package(values: Mapping[str, Any], arch: str) -> Iterator[Package]:
    name = _text(values, "DisplayName")
    if name is None or values.get("SystemComponent") == 1 or _text(values, "ParentKeyName"):
        return
    version = _text(values, "DisplayVersion") or ""
    publisher = _text(values, "Publisher") or ""
    yield Package("registry", name, arch, version, publisher, version)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value.strip() or None if isinstance(value, str) else None


if sys.platform == "win32":
    import winreg
    from contextlib import contextmanager

    class NativeRegistry:
        """See `Registry`."""

        def values(self, key: str) -> Mapping[str, Any]:
            """See `Registry`."""
            found: dict[str, Any] = {}
            with _opened(key) as handle:
                if handle is not None:
                    _, count, _ = winreg.QueryInfoKey(handle)
                    for number in range(count):
                        name, value, _ = winreg.EnumValue(handle, number)
                        found[name] = value
            return found

        def keys(self, key: str) -> Sequence[str]:
            """See `Registry`."""
            with _opened(key) as handle:
                if handle is None:
                    return []
                count, _, _ = winreg.QueryInfoKey(handle)
                return [winreg.EnumKey(handle, number) for number in range(count)]

    @contextmanager
    def _opened(key: str) -> Iterator[winreg.HKEYType | None]:
        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        try:
            handle = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, access)
        except FileNotFoundError:
            yield None
            return
        with handle:
            yield handle
