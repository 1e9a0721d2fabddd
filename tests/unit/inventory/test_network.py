from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from agent.inventory.sections import network, ports
from tests.unit.inventory.machines import DEBIAN, machine, tree

INTERFACES = {
    "/sys/class/net/eth0/address": "02:fc:00:00:00:01\n",
    "/sys/class/net/eth0/flags": "0x1003\n",
    "/sys/class/net/eth0/mtu": "1400\n",
    "/sys/class/net/eth0/type": "1\n",
    "/sys/class/net/eth0/device/vendor": "0x1af4\n",
    "/sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "/sys/class/net/lo/flags": "0x9\n",
    "/sys/class/net/lo/mtu": "65536\n",
    "/sys/class/net/lo/type": "772\n",
    "/sys/class/net/br0/flags": "0x1002\n",
    "/sys/class/net/br0/type": "1\n",
    "/sys/class/net/bonding_masters": "\n",
    "/etc/resolv.conf": "# made\nsearch a.example b.example\nnameserver 127.0.0.53\n",
    "/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.53\nnameserver 2001:db8::53\n",
}
little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="not run: the tables were recorded on a little-endian machine"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(DEBIAN, tmp_path / "m")
    return tree(tmp_path / "m", INTERFACES)


@little_endian
def test_interfaces_gateways_and_the_name_servers_behind_the_local_one(root: Path) -> None:
    facts = network.collect(machine(root))
    assert [(item.name, item.kind, item.up) for item in facts.interfaces] == [
        ("br0", "virtual", False),
        ("eth0", "physical", True),
        ("lo", "loopback", True),
    ]
    _, eth0, lo = facts.interfaces
    assert (eth0.mac, eth0.mtu) == ("02:fc:00:00:00:01", 1400)
    assert eth0.addresses == ["fd00::2/64", "fe80::fc:ff:fe00:1/64"]
    assert (lo.mac, lo.addresses) == (None, ["127.0.0.1/8", "::1/128"])
    assert facts.gateways == [
        network.Gateway("192.0.2.1", "eth0"),
        network.Gateway("fd00::1", "eth0"),
    ]
    assert facts.dns == network.Resolver(["192.0.2.53", "2001:db8::53"], [])


def test_privacy_addresses_are_left_out() -> None:
    text = (
        "20010db8000000000000000000000009 02 40 00 01 eth0\n"
        "20010db8000000000000000000000002 02 40 00 00 eth0\n"
    )
    assert network.parse_if_inet6(text) == {"eth0": ["2001:db8::2/64"]}


def test_a_missing_resolver_is_a_gap(root: Path) -> None:
    (root / "etc/resolv.conf").unlink()
    facts = network.collect(machine(root))
    assert facts.dns == network.Resolver([], [])
    assert "dns" in facts.gaps


def held_by(pid: int, name: str, *inodes: int) -> dict[str, str]:
    links = {f"/proc/{pid}/fd/{at}": f"-> socket:[{inode}]" for at, inode in enumerate(inodes, 3)}
    return {f"/proc/{pid}/comm": f"{name}\n", f"/proc/{pid}/fd/0": "-> /dev/null", **links}


@little_endian
def test_what_listens_is_told_with_its_user_and_its_programs(root: Path) -> None:
    tree(root, held_by(10, "sshd", 20293, 20294))
    tree(root, held_by(11, "postgres", 20295, 20296))
    tree(root, held_by(12, "master", 20295, 20299, 20301))
    facts = ports.collect(machine(root))
    assert [
        (port.protocol, port.port, port.address, port.user, port.programs) for port in facts.ports
    ] == [
        ("tcp", 22, "0.0.0.0", "root", ["sshd"]),
        ("tcp", 22, "::", "root", ["sshd"]),
        ("tcp", 5432, "127.0.0.1", "postgres", ["master", "postgres"]),
        ("tcp", 5432, "::1", "postgres", ["postgres"]),
        ("udp", 53, "127.0.0.53", "root", None),
        ("udp", 5353, "::", "root", ["master"]),
    ]
    assert facts.udp_left_out == (32768, 60999)
    assert "programs" in facts.gaps


@little_endian
def test_a_udp_port_in_the_passing_range_is_told_when_it_is_the_kernels(root: Path) -> None:
    told = {port.port for port in ports.collect(machine(root)).ports}
    assert 41000 in told
    tree(root, held_by(12, "resolver", 20299))
    told = {port.port for port in ports.collect(machine(root)).ports}
    assert 41000 not in told


@little_endian
def test_process_ids_leave_no_trace(root: Path) -> None:
    tree(root, held_by(10, "sshd", 20293))
    before = ports.collect(machine(root))
    shutil.rmtree(root / "proc/10")
    tree(root, held_by(999, "sshd", 20293))
    assert ports.collect(machine(root)) == before


def test_users_without_a_name_keep_their_number() -> None:
    (port,) = ports.ports_of(
        [ports.Socket("tcp", "::", 80, 4242, 7)],
        users={0: "root"},
        programs={},
        left_out=(32768, 60999),
        hidden=True,
    )
    assert port == ports.Port("tcp", "::", 80, "4242", None)
