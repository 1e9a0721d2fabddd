"""The sections of an inventory on macOS."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import psutil

from agent.host.boot import boot_id
from agent.host.launchd import parse_disabled
from agent.inventory import by_psutil
from agent.inventory.by_psutil import booted_at, interfaces, may_be_told
from agent.inventory.macos import facts
from agent.inventory.section import Section
from agent.inventory.sections.cpu import Cpu
from agent.inventory.sections.disks import Disks
from agent.inventory.sections.memory import Memory
from agent.inventory.sections.network import Gateway, Network, Resolver
from agent.inventory.sections.packages import Packages
from agent.inventory.sections.services import Services
from agent.inventory.sections.system import System, timezone_of
from agent.inventory.sources import Sources, decode

DAEMONS = ("/Library/LaunchDaemons", "/System/Library/LaunchDaemons")


def _profile(sources: Sources, *kinds: str) -> Mapping[str, list[facts.Row]]:
    return facts.parse_profile(sources.run("system_profiler", "-json", *kinds).checked())


def _printed(sources: Sources, *argv: str) -> str:
    return decode(sources.run(*argv).checked())


def system(sources: Sources) -> System:
    """The version, and the maker's plate."""
    gaps: dict[str, str] = {}
    hardware = may_be_told(
        gaps,
        "hardware",
        lambda: facts.hardware_of(
            _profile(sources, "SPHardwareDataType").get("SPHardwareDataType", [])
        ),
        None,
    )
    return System(
        os=facts.operating_system(_printed(sources, "sw_vers", "-productVersion").strip()),
        kernel=platform.release(),
        kernel_build=_printed(sources, "sw_vers", "-buildVersion").strip(),
        arch=sources.arch,
        hostname=platform.node(),
        machine_id=hardware.uuid if hardware else None,
        boot_id=boot_id(),
        booted_at=booted_at(),
        timezone=may_be_told(
            gaps, "timezone", lambda: timezone_of(sources.link("/etc/localtime")), None
        ),
        hardware=hardware,
        gaps=gaps,
    )


def cpu(sources: Sources) -> Cpu:
    """The processor, by sysctl."""
    gaps = {"vulnerabilities": "macOS does not list them", "sockets": "macOS does not tell them"}
    model = may_be_told(
        gaps,
        "model",
        lambda: _printed(sources, "sysctl", "-n", "machdep.cpu.brand_string").strip(),
        None,
    )
    guest = may_be_told(
        gaps, "virtualised", lambda: _printed(sources, "sysctl", "-n", "kern.hv_vmm_present"), "0"
    )
    return Cpu(
        model=model,
        vendor="Apple" if (model or "").startswith("Apple") else "Intel" if model else None,
        sockets=None,
        cores=psutil.cpu_count(logical=False),
        threads=psutil.cpu_count() or 1,
        max_mhz=None,
        microcode=None,
        virtualised=guest.strip() == "1",
        vulnerabilities={},
        gaps=gaps,
    )


def memory(sources: Sources) -> Memory:
    """Memory and its modules; swap files come and go by themselves."""
    gaps = {"swaps": "macOS makes and removes them as it needs them"}
    modules = may_be_told(
        gaps,
        "modules",
        lambda: facts.modules_of(_profile(sources, "SPMemoryDataType").get("SPMemoryDataType", [])),
        None,
    )
    return Memory(
        total_bytes=psutil.virtual_memory().total,
        swap_total_bytes=0,
        swaps=[],
        modules=modules,
        gaps=gaps,
    )


def disks(sources: Sources) -> Disks:
    """Whole disks, by system_profiler."""
    profile = _profile(sources, "SPNVMeDataType", "SPSerialATADataType")
    gaps = {"devices": "only whole disks of NVMe and SATA"}
    return Disks(source="system_profiler", devices=facts.devices_of(profile), gaps=gaps)


def network(sources: Sources) -> Network:
    """Interfaces by psutil, gateways by netstat, name servers by scutil."""
    gaps: dict[str, str] = {}
    gateways = may_be_told(
        gaps,
        "gateways",
        lambda: facts.gateways_of(_printed(sources, "netstat", "-rn")),
        list[Gateway](),
    )
    dns = may_be_told(
        gaps,
        "dns",
        lambda: facts.resolver_of(_printed(sources, "scutil", "--dns")),
        Resolver([], []),
    )
    known = interfaces(psutil.net_if_addrs(), psutil.net_if_stats())
    return Network(interfaces=known, gateways=gateways, dns=dns, gaps=gaps)


def packages(sources: Sources) -> Packages:
    """Receipts of packages, and applications."""
    gaps: dict[str, str] = {}
    receipts = sources.run("pkgutil", "--regexp", "--pkg-info-plist", ".*").checked()
    found = set(facts.receipts_of(receipts))
    found |= may_be_told(
        gaps,
        "applications",
        lambda: set(
            facts.applications_of(
                _profile(sources, "SPApplicationsDataType").get("SPApplicationsDataType", [])
            )
        ),
        set(),
    )
    return Packages(packages=sorted(found), gaps=gaps)


def services(sources: Sources) -> Services:
    """Daemons that launchd has loaded, and those that have a file alone."""
    labels = [
        name.removesuffix(".plist")
        for folder in DAEMONS
        for name in sources.listed(folder)
        if name.endswith(".plist")
    ]
    disabled = parse_disabled(_printed(sources, "launchctl", "print-disabled", "system"))
    listed = _printed(sources, "launchctl", "list")
    gaps = {"services": "a daemon without a process is told by the name of its file"}
    return Services(
        source="launchd", services=facts.services_of(listed, disabled, labels), gaps=gaps
    )


SECTIONS: tuple[Section, ...] = (
    Section("system", 1, system, budget_s=30.0, every_s=900),
    Section("cpu", 1, cpu),
    Section("memory", 1, memory, budget_s=30.0),
    Section("disks", 1, disks, budget_s=30.0),
    Section("filesystems", 1, by_psutil.filesystems, every_s=900),
    Section("network", 1, network, every_s=300),
    Section("packages", 1, packages, budget_s=120.0),
    Section("services", 1, services, every_s=300),
    Section("ports", 1, by_psutil.ports, budget_s=30.0, every_s=300),
    Section("users", 1, by_psutil.users, every_s=300),
)
