"""Installed packages of dpkg and rpm.

Formats: deb-control(5) as in dpkg's status file; `rpm -qa` with a format of our own.
The source package is told because distributions publish their advisories by it.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from agent.host.process import ProgramError
from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources, decode
from protocol.errors import Code, UnavailableError

DPKG_STATUS = "/var/lib/dpkg/status"
RPM_DATABASES = tuple(
    f"{folder}/{name}"
    for folder in ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
    for name in ("rpmdb.sqlite", "Packages.db", "Packages")
)
RPM_FORMAT = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\n"

_WANTED = re.compile(r"^(Package|Status|Architecture|Version|Source): *(.*)$", re.MULTILINE)
_SOURCE = re.compile(r"(\S+)(?: \((.+)\))?")
_SOURCE_RPM = re.compile(r"(?P<name>.+)-(?P<version>[^-]+-[^-]+)\.(?:no)?src\.rpm\Z")


class Package(msgspec.Struct, frozen=True, order=True):
    """`state` is `installed`, or what dpkg says when it got stuck on the way there."""

    manager: Literal["dpkg", "rpm", "registry", "pkgutil", "application"]
    name: str
    arch: str
    version: str
    source: str
    source_version: str
    state: str = "installed"


class Packages(Facts, frozen=True, kw_only=True):
    """Packages by manager, name, architecture, version; several versions can be installed."""

    packages: list[Package]


def parse_dpkg_status(text: str) -> list[Package]:
    """Packages with files on disk; those removed but for their configuration are not."""
    found = []
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = dict(_WANTED.findall(stanza))
        state = fields.get("Status", "").rpartition(" ")[2]
        if "Package" not in fields or state in ("", "not-installed", "config-files"):
            continue
        name, version = fields["Package"], fields.get("Version", "")
        source = _SOURCE.match(fields.get("Source") or name)
        found.append(
            Package(
                manager="dpkg",
                name=name,
                arch=fields.get("Architecture", ""),
                version=version,
                source=source[1] if source else name,
                source_version=(source and source[2]) or version,
                state=state,
            )
        )
    return sorted(found)


def parse_rpm(text: str) -> list[Package]:
    """The lines that `RPM_FORMAT` makes, without the public keys that rpm lists as packages.

    Raises `UnavailableError` for a line of another form.
    """
    found = set()
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 4:
            raise UnavailableError(f"rpm printed a line of an unknown form: {line[:80]!r}")
        name, version, arch, source_rpm = fields
        if name == "gpg-pubkey":
            continue
        source = _SOURCE_RPM.match(source_rpm)
        found.add(
            Package(
                manager="rpm",
                name=name,
                arch=arch,
                version=version,
                source=source["name"] if source else name,
                source_version=source["version"] if source else version,
            )
        )
    return sorted(found)


def collect(sources: Sources) -> Packages:
    """Ask every database that is here; raises `UnavailableError` when there is none."""
    gaps: dict[str, str] = {}
    packages: list[Package] = []
    dpkg = sources.exists(DPKG_STATUS)
    if dpkg:
        packages += parse_dpkg_status(sources.text(DPKG_STATUS))
    rpm = any(map(sources.exists, RPM_DATABASES))
    if rpm:
        try:
            output = sources.run("rpm", "-qa", "--qf", RPM_FORMAT).checked()
            packages += parse_rpm(decode(output))
        except ProgramError as error:
            if error.code is Code.TIMED_OUT or not dpkg:
                raise
            gaps["rpm"] = str(error)
    if not dpkg and not rpm:
        raise UnavailableError("neither dpkg nor rpm keeps a database here")
    return Packages(packages=sorted(packages), gaps=gaps)


SECTION = Section("packages", 1, collect, every_s=3600)
