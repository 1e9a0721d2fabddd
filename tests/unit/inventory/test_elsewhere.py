"""The sections of Windows and macOS, out of what their programs answer and psutil tells."""

from __future__ import annotations

import json
import plistlib
import socket
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest

from agent.host.process import Finished, ProgramError
from agent.inventory import by_psutil
from agent.inventory.chosen import SECTIONS, section_of
from agent.inventory.live import encode_live
from agent.inventory.live_by_psutil import live_by_psutil
from agent.inventory.macos import facts as macos
from agent.inventory.macos import sections as macos_sections
from agent.inventory.section import Section, encode_facts
from agent.inventory.sections.disks import Device
from agent.inventory.sections.memory import Module
from agent.inventory.sections.network import Gateway, Resolver
from agent.inventory.sections.packages import Package
from agent.inventory.sections.services import Service
from agent.inventory.sections.system import Hardware, OperatingSystem
from agent.inventory.sources import sources_at
from agent.inventory.windows import facts as windows
from agent.inventory.windows.cim import instances, number, parse_instances, powershell, text, texts
from agent.inventory.windows.registry import UNINSTALL, operating_system, packages_of
from protocol.errors import Code, SteadError, UnavailableError


def test_powershell_is_asked_for_one_class_and_answers_with_a_list() -> None:
    argv = powershell("Win32_BIOS", ("A", "B"))
    assert argv[:4] == ("powershell.exe", "-NoProfile", "-NonInteractive", "-Command")
    assert argv[4].endswith(
        "ConvertTo-Json -Compress -InputObject @(Get-CimInstance -ClassName Win32_BIOS"
        " | Select-Object -Property A,B)"
    )
    assert parse_instances(b"[]\r\n") == []


@pytest.mark.parametrize(
    "output", [b"", b"{}", b"[1]", b"Get-CimInstance : Access denied", b"\xff"]
)
def test_what_powershell_says_otherwise_is_no_answer(output: bytes) -> None:
    with pytest.raises(UnavailableError, match="something unknown"):
        parse_instances(output)


def test_a_class_is_asked_by_the_one_way_there_is() -> None:
    def run(*argv: str, **_: Any) -> Finished:
        assert argv == powershell("Win32_X", ("Name",))
        return Finished(argv, 0, b'[{"Name":"a"}]', b"")

    assert instances(run, "Win32_X", ("Name",)) == [{"Name": "a"}]


def test_properties_are_what_they_should_be_or_nothing() -> None:
    row = {"a": " x ", "b": "", "c": 5, "d": "17179869184", "e": True, "f": ["x", 1], "g": None}
    assert [text(row, name) for name in "abcg"] == ["x", None, None, None]
    assert [number(row, name) for name in "cdeag"] == [5, 17179869184, None, None, None]
    assert [texts(row, name) for name in "fag"] == [["x"], [], []]


def test_the_plate_of_a_windows_machine() -> None:
    product = {"Vendor": "Dell Inc.", "Name": "Latitude 7390", "IdentifyingNumber": "ABC1234",
               "UUID": "4C4C4544-0042-3310-8051-B4C04F595132"}  # fmt: skip
    bios = {"SMBIOSBIOSVersion": "1.33.0", "Date": "2024-01-17"}
    assert windows.hardware_of([product], [bios]) == Hardware(
        "Dell Inc.",
        "Latitude 7390",
        "ABC1234",
        "4C4C4544-0042-3310-8051-B4C04F595132",
        "1.33.0",
        "2024-01-17",
    )
    assert windows.hardware_of([], []) == Hardware()


def test_memory_and_disks_of_windows() -> None:
    rows = [
        {"DeviceLocator": "DIMM B", "Capacity": 8589934592, "SMBIOSMemoryType": 26,
         "Speed": 2400, "Manufacturer": "Samsung", "PartNumber": "M471A1K43 ", "SerialNumber": "1"},
        {"DeviceLocator": "DIMM A", "Capacity": "8589934592", "SMBIOSMemoryType": 0},
    ]  # fmt: skip
    assert windows.modules_of(rows) == [
        Module("DIMM A", 2**33, None, None, None, None, None),
        Module("DIMM B", 2**33, "DDR4", "2400 MT/s", "Samsung", "M471A1K43", "1"),
    ]
    [disk, stick] = windows.devices_of(
        [
            {"DeviceID": "\\\\.\\PHYSICALDRIVE1", "Size": None, "MediaType": "Removable Media",
             "InterfaceType": "USB"},
            {"DeviceID": "\\\\.\\PHYSICALDRIVE0", "Size": 512105932800, "Model": "SAMSUNG MZVLB512",
             "SerialNumber": " S4EN ", "FirmwareRevision": "EXA7301Q", "InterfaceType": "SCSI",
             "MediaType": "Fixed hard disk media"},
        ]
    )  # fmt: skip
    assert (disk.name, disk.size_bytes, disk.serial, disk.transport, disk.removable) == (
        "physicaldrive0",
        512105932800,
        "S4EN",
        "scsi",
        False,
    )
    assert (stick.name, stick.size_bytes, stick.removable) == ("physicaldrive1", 0, True)


def test_routes_of_windows_are_those_of_adapters_in_use() -> None:
    rows = [
        {"Description": "Ethernet", "IPEnabled": True, "DefaultIPGateway": ["10.0.0.1", "fe80::1"],
         "DNSServerSearchOrder": ["10.0.0.53", "1.1.1.1"],
         "DNSDomainSuffixSearchOrder": ["example.org"]},
        {"Description": "VPN", "IPEnabled": True, "DefaultIPGateway": None,
         "DNSServerSearchOrder": ["10.0.0.53"], "DNSDomainSuffixSearchOrder": []},
        {"Description": "Off", "IPEnabled": False, "DefaultIPGateway": ["10.9.9.9"]},
    ]  # fmt: skip
    gateways, dns = windows.routes_of(rows)
    assert gateways == [Gateway("10.0.0.1", "Ethernet"), Gateway("fe80::1", "Ethernet")]
    assert dns == Resolver(["10.0.0.53", "1.1.1.1"], ["example.org"])


def test_a_service_that_windows_starts_on_demand_does_not_come_and_go() -> None:
    shown = [
        windows.service_of("a", "A", "automatic", "running"),
        windows.service_of("b", "B", "manual", "running"),
        windows.service_of("c", "C", "manual", "stopped"),
        windows.service_of("d", "D", "disabled", "stopped"),
        windows.service_of("e", "E", "automatic", "start"),
    ]
    assert [(one.start, one.state) for one in shown] == [
        ("enabled", "running"),
        ("on demand", "on demand"),
        ("on demand", "on demand"),
        ("disabled", "stopped"),
        ("enabled", "stopped"),
    ]


@pytest.mark.parametrize(
    ("values", "version", "name", "shown"),
    [
        ({"ProductName": "Windows 10 Pro", "UBR": 3448, "DisplayVersion": "23H2"}, "10.0.22631",
         "Windows 11 Pro", "10.0.22631.3448"),
        ({"ProductName": "Windows 10 Pro"}, "10.0.19045", "Windows 10 Pro", "10.0.19045"),
        ({"ProductName": "Windows Server 2022 Standard"}, "10.0.20348",
         "Windows Server 2022 Standard", "10.0.20348"),
        ({}, "10.0.1", "Windows", "10.0.1"),
    ],
)  # fmt: skip
def test_windows_11_is_told_by_its_build(
    values: dict[str, Any], version: str, name: str, shown: str
) -> None:
    found = operating_system(values, version)
    assert (found.id, found.name, found.version) == ("windows", name, shown)
    assert found.codename == values.get("DisplayVersion")


class FakeRegistry:
    """Keys and their values, as a dictionary has them."""

    def __init__(self, keys: Mapping[str, Mapping[str, Any]]) -> None:
        self._keys = keys

    def values(self, key: str) -> Mapping[str, Any]:
        return self._keys.get(key, {})

    def keys(self, key: str) -> Sequence[str]:
        return [one.removeprefix(f"{key}\\") for one in self._keys if one.startswith(f"{key}\\")]


def test_packages_of_windows_are_what_could_be_uninstalled() -> None:
    wide, narrow = UNINSTALL["x64"], UNINSTALL["x86"]
    seven = {"DisplayName": "7-Zip 23.01 (x64)", "DisplayVersion": "23.01", "Publisher": "Igor"}
    registry = FakeRegistry(
        {
            f"{wide}\\7-Zip": seven,
            f"{wide}\\{{A}}": {**seven},
            f"{wide}\\KB1": {"DisplayName": "Update", "ParentKeyName": "Office"},
            f"{wide}\\{{B}}": {"DisplayName": "Part", "SystemComponent": 1},
            f"{wide}\\AddressBook": {},
            f"{narrow}\\Old": {"DisplayName": "Old ", "DisplayVersion": 5},
        }
    )
    assert packages_of(registry) == [
        Package("registry", "7-Zip 23.01 (x64)", "x64", "23.01", "Igor", "23.01"),
        Package("registry", "Old", "x86", "", "", ""),
    ]


PROFILE: Mapping[str, list[dict[str, Any]]] = {
    "SPHardwareDataType": [
        {"_name": "hardware_overview", "machine_model": "MacBookPro18,3", "serial_number": "C02X",
         "platform_UUID": "11111111-2222-3333-4444-555555555555", "boot_rom_version": "10151.101.3"}
    ],
    "SPMemoryDataType": [
        {"_name": "global_name", "is_memory_upgradeable": "No", "_items": [
            {"_name": "DIMM1", "dimm_size": "empty"},
            {"_name": "DIMM0", "dimm_size": "8 GB", "dimm_type": "DDR4", "dimm_speed": "2667 MHz"},
        ]}
    ],
    "SPNVMeDataType": [
        {"_name": "Apple SSD Controller", "_items": [
            {"_name": "APPLE SSD AP0512", "bsd_name": "disk0", "device_model": "APPLE SSD AP0512",
             "device_serial": "0ba0", "device_revision": "1161", "size_in_bytes": 500277792768,
             "removable_media": "no", "partition_map_type": "guid_partition_map_type"}
        ]}
    ],
    "SPSerialATADataType": [{"_name": "Port without a disk"}],
    "SPApplicationsDataType": [
        {"_name": "Mail", "obtained_from": "apple", "version": "16.0"},
        {"_name": "Firefox", "obtained_from": "identified_developer", "version": "125.0",
         "arch_kind": "arch_arm_i64"},
    ],
}  # fmt: skip


def test_the_profile_of_a_mac() -> None:
    profile = macos.parse_profile(json.dumps(PROFILE).encode())
    assert macos.hardware_of(profile["SPHardwareDataType"]) == Hardware(
        "Apple",
        "MacBookPro18,3",
        "C02X",
        "11111111-2222-3333-4444-555555555555",
        "10151.101.3",
        None,
    )
    assert macos.modules_of(profile["SPMemoryDataType"]) == [
        Module("DIMM0", 2**33, "DDR4", "2667 MHz", None, None, None),
        Module("DIMM1", 0, None, None, None, None, None),
    ]
    soldered = {"SPMemoryDataType": "16 GB", "dimm_type": "LPDDR5", "dimm_manufacturer": "Hynix"}
    [module] = macos.modules_of([soldered])
    assert (module.size_bytes, module.kind, module.manufacturer) == (2**34, "LPDDR5", "Hynix")
    [disk] = macos.devices_of(profile)
    assert isinstance(disk, Device)
    assert (disk.name, disk.size_bytes, disk.transport) == ("disk0", 500277792768, "nvme")
    [application] = macos.applications_of(profile["SPApplicationsDataType"])
    assert (application.name, application.version, application.arch) == (
        "Firefox",
        "125.0",
        "arm_i64",
    )
    assert macos.operating_system("14.5") == OperatingSystem(
        "macos", [], "macOS 14.5", "14.5", None, None
    )


def test_receipts_come_as_property_lists_one_after_another() -> None:
    output = b"".join(
        plistlib.dumps({"pkgid": name, "pkg-version": "1.2", "volume": "/"})
        for name in ("org.example.tool", "com.apple.pkg.Core")
    )
    assert list(macos.receipts_of(output)) == [
        Package("pkgutil", "org.example.tool", "", "1.2", "org.example.tool", "1.2")
    ]
    assert list(macos.receipts_of(b"")) == []
    with pytest.raises(UnavailableError, match="pkgutil printed something unknown"):
        list(macos.receipts_of(b"<plist><dict><key></plist>"))


def test_daemons_of_launchd() -> None:
    listed = "PID\tStatus\tLabel\n81\t0\torg.a\n-\t78\torg.b\n-\t0\torg.c\n-\t-9\torg.d\n"
    found = macos.services_of(listed, {"org.c": True, "org.e": True}, ["org.a", "org.e"])
    assert found == [
        Service("org.a", "enabled", "running", ""),
        Service("org.b", "enabled", "failed", ""),
        Service("org.c", "disabled", "on demand", ""),
        Service("org.d", "enabled", "failed", ""),
        Service("org.e", "disabled", "stopped", ""),
    ]


def test_routes_and_name_servers_of_a_mac() -> None:
    routes = """Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
default            link#18            UCSIg           bridge100      !
127                127.0.0.1          UCS                   lo0

Internet6:
default                                 fe80::1%en0                             UGcg   en0
"""
    assert macos.gateways_of(routes) == [Gateway("192.168.1.1", "en0"), Gateway("fe80::1", "en0")]
    resolvers = """DNS configuration

resolver #1
  search domain[0] : example.org
  nameserver[0] : 192.168.1.1
  nameserver[1] : fe80::1%en0
  if_index : 12 (en0)
  flags    : Request A records

resolver #2
  domain   : local
  nameserver[0] : 9.9.9.9
"""
    assert macos.resolver_of(resolvers) == Resolver(["192.168.1.1", "fe80::1%en0"], ["example.org"])
    assert macos.resolver_of("No DNS configuration available") == Resolver([], [])


def printed_by_a_mac(*argv: str, **_: Any) -> Finished:
    """What a Mac prints, as far as it is recorded here."""
    answers: Mapping[str, bytes] = {
        "system_profiler": json.dumps(PROFILE).encode(),
        "sw_vers -productVersion": b"14.5\n",
        "sw_vers -buildVersion": b"23F79\n",
        "sysctl -n machdep.cpu.brand_string": b"Apple M1 Pro\n",
        "sysctl -n kern.hv_vmm_present": b"0\n",
        "netstat -rn": b"default 10.0.0.1 UG en0\n",
        "pkgutil": b"",
        "launchctl print-disabled system": b'\t"org.a" => disabled\n',
        "launchctl list": b"PID\tStatus\tLabel\n-\t0\torg.a\n",
    }
    line = " ".join(argv)
    for words, output in answers.items():
        if line.startswith(words):
            return Finished(argv, 0, output, b"")
    raise ProgramError(f"cannot start {argv[0]}: No such file or directory")


def test_every_section_of_a_mac_is_encoded_and_tells_what_it_lacks(tmp_path: Any) -> None:
    for folder in macos_sections.DAEMONS:
        path = tmp_path / folder.lstrip("/")
        path.mkdir(parents=True)
        (path / "org.b.plist").touch()
    sources = sources_at(tmp_path, run=printed_by_a_mac)
    for section in macos_sections.SECTIONS:
        told = section.collect(sources)
        body = msgspec.json.decode(encode_facts(section, told))
        assert body["status"] == "ok"
        if section.name == "network":
            assert body["facts"]["gaps"] == {
                "dns": "cannot start scutil: No such file or directory"
            }
        if section.name == "services":
            assert [one["name"] for one in body["facts"]["services"]] == ["org.a", "org.b"]


def test_each_system_has_sections_of_the_same_names() -> None:
    names = [section.name for section in SECTIONS]
    assert [section.name for section in macos_sections.SECTIONS] == names
    found: Section = section_of("packages")
    assert found.name == "packages"


def test_a_late_program_makes_the_section_late_and_no_gap() -> None:
    def late() -> int:
        raise ProgramError("did not end", code=Code.TIMED_OUT)

    def missing() -> int:
        raise ProgramError("not there")

    gaps: dict[str, str] = {}
    with pytest.raises(SteadError):
        by_psutil.may_be_told(gaps, "a", late, 0)
    assert by_psutil.may_be_told(gaps, "b", missing, 7) == 7
    assert gaps == {"b": "not there"}


def test_interfaces_by_psutil_are_those_of_this_machine() -> None:
    known = by_psutil.interfaces(psutil.net_if_addrs(), psutil.net_if_stats())
    [loopback] = [one for one in known if one.kind == "loopback"]
    assert "127.0.0.1/8" in loopback.addresses
    assert loopback.up


def test_addresses_of_windows_lose_their_zone_and_macs_their_dashes() -> None:
    addresses = {
        "Ethernet": [
            SimpleNamespace(family=psutil.AF_LINK, address="02-FC-00-00-00-01", netmask=None),
            SimpleNamespace(family=socket.AF_INET, address="192.0.2.2", netmask="255.255.254.0"),
            SimpleNamespace(family=socket.AF_INET6, address="fe80::1%12", netmask=None),
        ]
    }
    [found] = by_psutil.interfaces(addresses, {})
    assert (found.kind, found.mac, found.up) == ("physical", "02:fc:00:00:00:01", False)
    assert found.addresses == ["192.0.2.2/23", "fe80::1"]


def test_a_port_that_is_listened_on_is_found_with_its_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = by_psutil.ports(sources_at())
    [one] = [one for one in found.ports if one.port == port]
    assert (one.protocol, one.address) == ("tcp", "127.0.0.1")
    assert one.programs


def test_live_figures_by_psutil_are_those_of_this_machine() -> None:
    waits: list[float] = []
    figures = live_by_psutil(sources_at(), wait=waits.append)
    assert waits == [0.3]
    assert figures.memory is not None
    assert figures.memory.total_bytes == psutil.virtual_memory().total
    assert figures.by_memory[0].memory_bytes >= figures.by_memory[-1].memory_bytes > 0
    assert {disk.path for disk in figures.disks} <= {
        part.mountpoint for part in psutil.disk_partitions()
    }
    assert figures.uptime_s is not None
    assert figures.uptime_s > 0
    assert msgspec.json.decode(encode_live(figures))["failed_services"] is None


def test_what_is_not_listened_on_is_no_port() -> None:
    def one(kind: int, port: int, status: str, pid: int | None = 7) -> Any:
        return SimpleNamespace(
            type=kind, laddr=SimpleNamespace(ip="::", port=port), status=status, pid=pid
        )

    sockets = [
        one(socket.SOCK_STREAM, 445, psutil.CONN_LISTEN),
        one(socket.SOCK_STREAM, 445, psutil.CONN_LISTEN, pid=None),
        one(socket.SOCK_STREAM, 50000, psutil.CONN_ESTABLISHED),
        one(socket.SOCK_DGRAM, 53, psutil.CONN_NONE),
        one(socket.SOCK_DGRAM, 60000, psutil.CONN_NONE),
        SimpleNamespace(type=socket.SOCK_DGRAM, laddr=(), status="", pid=1),
    ]
    found = by_psutil.ports_of(sockets, lambda _: ("SYSTEM", "svchost.exe"))
    assert [(port.protocol, port.port, port.programs) for port in found] == [
        ("tcp", 445, ["svchost.exe"]),
        ("udp", 53, ["svchost.exe"]),
    ]
