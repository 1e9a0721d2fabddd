from __future__ import annotations

from pathlib import Path

import pytest

from agent.inventory.sections import cpu, memory, system
from protocol.errors import UnavailableError
from tests.unit.inventory.machines import DEBIAN, machine, recorded, tree

KERNEL = {
    "/etc/os-release": (DEBIAN / "etc/os-release").read_text(),
    "/proc/sys/kernel/osrelease": "6.1.0-28-amd64\n",
    "/proc/sys/kernel/version": "#1 SMP Debian 6.1.119-1\n",
    "/proc/sys/kernel/hostname": "web-01\n",
    "/proc/sys/kernel/random/boot_id": "4d26091a-dba0-4f50-97d9-adbe8f58f759\n",
    "/proc/stat": "cpu  1 2 3 4\nbtime 1747000000\nprocesses 12\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/localtime": "-> /usr/share/zoneinfo/Europe/Berlin",
}


def test_the_system_says_who_it_is(tmp_path: Path) -> None:
    facts = system.collect(machine(tree(tmp_path, KERNEL)))
    assert (facts.os.id, facts.os.version, facts.os.codename) == ("debian", "12", "bookworm")
    assert facts.os.name == "Debian GNU/Linux 12 (bookworm)"
    assert (facts.kernel, facts.hostname, facts.arch) == ("6.1.0-28-amd64", "web-01", "x86_64")
    assert facts.machine_id == "0123456789abcdef0123456789abcdef"
    assert facts.booted_at == "2025-05-11T21:46:40Z"
    assert facts.timezone == "Europe/Berlin"
    assert facts.hardware is None
    assert list(facts.gaps) == ["hardware"]


def test_the_makers_plate_is_read_where_there_is_one(tmp_path: Path) -> None:
    dmi = {
        "/sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "/sys/class/dmi/id/product_name": "20XW\n",
        "/sys/class/dmi/id/product_serial": "PF1\n",
        "/sys/class/dmi/id/bios_version": "N32ET\n",
    }
    facts = system.collect(machine(tree(tmp_path, KERNEL | dmi)))
    assert facts.hardware == system.Hardware(
        vendor="LENOVO", product="20XW", serial="PF1", bios_version="N32ET"
    )
    assert not facts.gaps


@pytest.mark.parametrize("content", ["", "uninitialized\n"])
def test_a_machine_id_that_was_never_made_is_a_gap(content: str, tmp_path: Path) -> None:
    facts = system.collect(machine(tree(tmp_path, KERNEL | {"/etc/machine-id": content})))
    assert facts.machine_id is None
    assert "machine_id" in facts.gaps


def test_without_a_boot_time_or_a_name_the_section_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no boot time"):
        system.parse_boot_time("cpu 1 2 3\nbtime soon\n")
    with pytest.raises(UnavailableError, match=r"cannot read /proc/sys/kernel/osrelease"):
        system.collect(machine(tree(tmp_path, {"/etc/os-release": "ID=x\n"})))


def test_os_release_follows_the_quoting_of_a_shell() -> None:
    text = 'ID=\'a b\'\nNAME="say \\"hi\\""\nBAD KEY=1\n# ID=no\nOPEN="x\nID_LIKE="rhel fedora"\n'
    values = system.parse_os_release(text)
    assert values == {"ID": "a b", "NAME": 'say "hi"', "OPEN": '"x', "ID_LIKE": "rhel fedora"}
    assert system.operating_system(values).like == ["rhel", "fedora"]


def test_processors_are_told_apart_from_cores_and_threads() -> None:
    facts = cpu.cpu_of(cpu.parse_cpuinfo((DEBIAN / "proc/cpuinfo").read_text()))
    assert (facts.sockets, facts.cores, facts.threads) == (1, 2, 2)
    assert (facts.model, facts.microcode, facts.virtualised) == ("AMD EPYC", "0x1000065", True)


def test_arm_names_its_processor_by_numbers_and_keeps_cores_to_itself() -> None:
    facts = cpu.cpu_of(cpu.parse_cpuinfo(recorded("cpuinfo-arm.txt")))
    assert facts.model == "implementer 0x41 part 0xd0c"
    assert (facts.sockets, facts.cores, facts.threads) == (None, None, 2)


def test_known_flaws_of_the_processor_are_told_or_missed_aloud(tmp_path: Path) -> None:
    known = {
        "/proc/cpuinfo": recorded("cpuinfo-arm.txt"),
        "/sys/devices/system/cpu/vulnerabilities/meltdown": "Mitigation: PTI\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3600000\n",
    }
    facts = cpu.collect(machine(tree(tmp_path / "new", known)))
    assert facts.vulnerabilities == {"meltdown": "Mitigation: PTI"}
    assert facts.max_mhz == 3600
    old = cpu.collect(machine(tree(tmp_path / "old", {"/proc/cpuinfo": known["/proc/cpuinfo"]})))
    assert old.vulnerabilities == {}
    assert "vulnerabilities" in old.gaps


def test_memory_is_its_size_not_its_use() -> None:
    facts = memory.collect(machine(DEBIAN))
    assert facts.total_bytes == 24684096 * 1024
    assert (facts.swap_total_bytes, facts.swaps) == (0, [])
    assert facts.modules is None
    assert facts.gaps == {"modules": "the firmware offers no DMI tables"}


def test_memory_modules_come_with_their_slots(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "/proc/meminfo": "MemTotal: 16 kB\nSwapTotal: 8 kB\n",
        "/proc/swaps": "Filename Type Size Used Priority\n/swap\\040file file 8 4 -2\n",
        "/sys/firmware/dmi/tables/DMI": b"\x00",
    }
    root = tree(tmp_path, files)
    full = memory.collect(machine(root, {"dmidecode --type 17": recorded("dmidecode-17.txt")}))
    assert full.modules == [
        memory.Module(
            slot="BANK 0 DIMM A",
            size_bytes=16 << 30,
            kind="DDR4",
            speed="3200 MT/s",
            manufacturer="Samsung",
            part="M471A2K43DB1-CWE",
            serial="0123ABCD",
        ),
        memory.Module("BANK 2 DIMM B", 0, None, None, None, None, None),
    ]
    assert full.swaps == [memory.Swap("/swap file", "file", 8192)]
    without = memory.collect(machine(root))
    assert without.modules is None
    assert without.gaps["modules"] == "cannot start dmidecode: No such file or directory"
