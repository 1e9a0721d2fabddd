"""The sections of an inventory on Windows."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import platform

    import psutil

    from agent.host.boot import boot_id
    from agent.inventory import by_psutil
    from agent.inventory.by_psutil import booted_at, interfaces, may_be_told
    from agent.inventory.section import Section
    from agent.inventory.sections.cpu import Cpu
    from agent.inventory.sections.disks import Disks
    from agent.inventory.sections.memory import Memory
    from agent.inventory.sections.network import Network, Resolver
    from agent.inventory.sections.packages import Packages
    from agent.inventory.sections.services import Services
    from agent.inventory.sections.system import Hardware, System
    from agent.inventory.sources import Sources
    from agent.inventory.windows import facts
    from agent.inventory.windows.cim import instances, number, text
    from agent.inventory.windows.registry import (
        CRYPTOGRAPHY,
        VERSION,
        NativeRegistry,
        operating_system,
        packages_of,
    )

    def _system(sources: Sources) -> System:
        gaps: dict[str, str] = {}
        registry = NativeRegistry()
        version = platform.version()

        def hardware() -> Hardware:
            products = instances(sources.run, "Win32_ComputerSystemProduct", facts.SYSTEM_PRODUCT)
            return facts.hardware_of(products, instances(sources.run, "Win32_BIOS", facts.BIOS))

        return System(
            os=operating_system(registry.values(VERSION), version),
            kernel=version,
            kernel_build=None,
            arch=facts.arch_of(platform.machine()),
            hostname=platform.node(),
            machine_id=registry.values(CRYPTOGRAPHY).get("MachineGuid"),
            boot_id=boot_id(),
            booted_at=booted_at(),
            timezone=None,
            hardware=may_be_told(gaps, "hardware", hardware, None),
            gaps={**gaps, "timezone": "Windows has names of its own for zones"},
        )

    def _cpu(sources: Sources) -> Cpu:
        gaps = {"vulnerabilities": "Windows does not list them", "microcode": "not asked for"}
        rows = may_be_told(
            gaps,
            "model",
            lambda: instances(sources.run, "Win32_Processor", facts.PROCESSOR),
            list[facts.Row](),
        )
        first = rows[0] if rows else {}
        return Cpu(
            model=text(first, "Name"),
            vendor=text(first, "Manufacturer"),
            sockets=len(rows) or None,
            cores=psutil.cpu_count(logical=False),
            threads=psutil.cpu_count() or 1,
            max_mhz=number(first, "MaxClockSpeed"),
            microcode=None,
            virtualised=False,
            vulnerabilities={},
            gaps={**gaps, "virtualised": "not asked for"},
        )

    def _memory(sources: Sources) -> Memory:
        gaps: dict[str, str] = {}
        rows = may_be_told(
            gaps,
            "modules",
            lambda: instances(sources.run, "Win32_PhysicalMemory", facts.MEMORY),
            None,
        )
        return Memory(
            total_bytes=psutil.virtual_memory().total,
            swap_total_bytes=may_be_told(
                gaps, "swap_total_bytes", lambda: psutil.swap_memory().total, 0
            ),
            swaps=[],
            modules=None if rows is None else facts.modules_of(rows),
            gaps={**gaps, "swaps": "only their sum is known"},
        )

    def _disks(sources: Sources) -> Disks:
        rows = instances(sources.run, "Win32_DiskDrive", facts.DISK)
        gaps = {"devices": "only whole disks, and not whether they turn"}
        return Disks(source="cim", devices=facts.devices_of(rows), gaps=gaps)

    def _network(sources: Sources) -> Network:
        gaps: dict[str, str] = {}
        rows = may_be_told(
            gaps,
            "gateways",
            lambda: instances(sources.run, "Win32_NetworkAdapterConfiguration", facts.ADAPTER),
            None,
        )
        gateways, dns = ([], Resolver([], [])) if rows is None else facts.routes_of(rows)
        if rows is None:
            gaps["dns"] = gaps["gateways"]
        known = interfaces(psutil.net_if_addrs(), psutil.net_if_stats())
        return Network(interfaces=known, gateways=gateways, dns=dns, gaps=gaps)

    def _packages(_: Sources) -> Packages:
        gaps = {"packages": "those of the machine, not those of one person, nor of the store"}
        return Packages(packages=packages_of(NativeRegistry()), gaps=gaps)

    def _services(_: Sources) -> Services:
        found, gaps = [], {}
        for one in psutil.win_service_iter():
            try:
                told = (one.name(), one.display_name() or "", one.start_type(), one.status())
            except psutil.NoSuchProcess:
                continue  # removed just now
            except (psutil.Error, OSError) as error:
                gaps[f"services.{one.name()}"] = str(error)
                continue
            found.append(facts.service_of(*told))
        return Services(source="windows", services=sorted(found), gaps=gaps)

    SECTIONS: tuple[Section, ...] = (
        Section("system", 1, _system, budget_s=30.0, every_s=900),
        Section("cpu", 1, _cpu, budget_s=30.0),
        Section("memory", 1, _memory, budget_s=30.0),
        Section("disks", 1, _disks, budget_s=30.0),
        Section("filesystems", 1, by_psutil.filesystems, every_s=900),
        Section("network", 1, _network, budget_s=30.0, every_s=300),
        Section("packages", 1, _packages),
        Section("services", 1, _services, budget_s=30.0, every_s=300),
        Section("ports", 1, by_psutil.ports, budget_s=30.0, every_s=300),
        Section("users", 1, by_psutil.users, every_s=300),
    )
