from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.inventory.sections import disks, filesystems
from agent.inventory.sources import Capacity
from protocol.errors import UnavailableError
from tests.unit.inventory.machines import DEBIAN, machine, recorded, tree


def test_a_disk_is_recorded_without_what_is_mounted_on_it() -> None:
    facts = disks.collect(machine(DEBIAN, {"lsblk": recorded("lsblk-debian12.json")}))
    assert facts.source == "lsblk"
    assert [(disk.name, disk.size_bytes) for disk in facts.devices] == [("vda", 274877906944)]


def test_layers_are_told_by_their_parents_and_passing_devices_left_out() -> None:
    found = {
        device.name: device for device in disks.parse_lsblk(recorded("lsblk-made.json").encode())
    }
    assert sorted(found) == ["md0", "nvme0n1", "nvme0n1p1", "sda", "sdb", "vg0-root"]
    assert found["md0"].parents == ["sda", "sdb"]
    assert found["vg0-root"].parents == ["md0"]
    assert found["sda"].vendor == "ATA"
    assert found["sda"].rotational
    assert not found["nvme0n1"].rotational
    assert found["nvme0n1p1"].size_bytes == 536870912
    assert found["nvme0n1p1"].content == "vfat"


@pytest.mark.parametrize("output", [b"", b"[]", b'{"blockdevices":[{}]}', b'{"blockdevices":[7]}'])
def test_output_that_lsblk_never_prints_is_refused(output: bytes) -> None:
    with pytest.raises(UnavailableError, match="lsblk printed something unknown"):
        disks.parse_lsblk(output)


def test_without_lsblk_the_kernel_is_asked_and_what_it_cannot_know_is_a_gap(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "/sys/block/sda/size": "2048\n",
            "/sys/block/sda/ro": "0\n",
            "/sys/block/sda/removable": "1\n",
            "/sys/block/sda/queue/rotational": "1\n",
            "/sys/block/sda/device/model": "USB DISK  \n",
            "/sys/block/sda/sda1/partition": "1\n",
            "/sys/block/sda/sda1/size": "1024\n",
            "/sys/block/sda/sda1/ro": "0\n",
            "/sys/block/loop0/size": "100\n",
            "/sys/block/sdb/size": "0\n",
        },
    )
    facts = disks.collect(machine(root))
    assert facts.source == "sysfs"
    whole, part = facts.devices
    assert (whole.name, whole.size_bytes, whole.model) == ("sda", 1 << 20, "USB DISK")
    assert (whole.removable, whole.rotational, whole.parents) == (True, True, [])
    assert (part.name, part.kind, part.parents, part.model) == ("sda1", "part", ["sda"], None)
    assert set(facts.gaps) == {"content", "transport", "uuid"}


def test_only_file_systems_that_hold_data_are_told() -> None:
    (mount,) = filesystems.parse_mounts((DEBIAN / "proc/self/mounts").read_text())
    assert (mount.path, mount.device, mount.kind) == ("/", "/dev/vda", "ext4")
    assert mount.options == [
        "discard",
        "relatime",
        "resgid=65534",
        "resuid=65534",
        "resv_strict",
        "rw",
    ]
    found = {mount.path: mount for mount in filesystems.parse_mounts(recorded("mounts-made.txt"))}
    assert sorted(found) == [
        "/",
        "/media/My Disk\\x",
        "/mnt/export",
        "/mnt/share",
        "/srv",
        "/srv/bind",
    ]
    assert [path for path, mount in found.items() if mount.remote] == ["/mnt/export", "/mnt/share"]


def test_a_password_among_the_options_is_hidden() -> None:
    found = {mount.path: mount for mount in filesystems.parse_mounts(recorded("mounts-made.txt"))}
    assert found["/mnt/share"].options == ["password=<hidden>", "rw", "username=backup"]


def test_a_remote_file_system_is_never_asked_for_its_size(tmp_path: Path) -> None:
    asked = []

    def capacity(path: str) -> Capacity:
        asked.append(path)
        if path.startswith("/media"):
            raise PermissionError(13, "Permission denied")
        return Capacity(total_bytes=100, used_bytes=1, free_bytes=99)

    root = tree(tmp_path, {"/proc/self/mounts": recorded("mounts-made.txt")})
    facts = filesystems.collect(dataclasses.replace(machine(root), capacity=capacity))
    assert asked == ["/", "/media/My Disk\\x", "/srv/bind"]
    assert set(facts.gaps) == {"/media/My Disk\\x", "/mnt/export", "/mnt/share", "/srv"}
    assert {mount.path: mount.size_bytes for mount in facts.mounts}["/"] == 100
