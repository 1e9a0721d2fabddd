"""Ports that listen, and which program and user stand behind them.

Formats: `/proc/net/{tcp,tcp6,udp,udp6}` (addresses are 32-bit words in the byte order
of the machine, ports big-endian), links in `/proc/PID/fd`. Process ids are left out:
they change with every restart. So are the UDP sockets of processes in the range of
ports that the kernel hands out: these are clients that wait for an answer. One there
that no process holds is the kernel's own (WireGuard's, say) and is told.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Mapping
from typing import Literal

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources

LISTEN, UNCONNECTED = "0A", "07"
TABLES: tuple[Literal["tcp", "tcp6", "udp", "udp6"], ...] = ("tcp", "tcp6", "udp", "udp6")
_INODE = re.compile(r"socket:\[(\d+)\]")


class Socket(msgspec.Struct, frozen=True):
    """A bound socket as the kernel lists it."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    uid: int
    inode: int


class Port(msgspec.Struct, frozen=True):
    """`programs` are the names of the processes that hold it; null when not to be seen."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    user: str
    programs: list[str] | None


class Ports(Facts, frozen=True, kw_only=True):
    """Ports by protocol, number, address; and the UDP range that was left out."""

    ports: list[Port]
    udp_left_out: tuple[int, int]


def parse_sockets(protocol: Literal["tcp", "udp"], text: str) -> list[Socket]:
    """Sockets that wait for anyone: TCP in LISTEN, UDP without a peer."""
    wanted = LISTEN if protocol == "tcp" else UNCONNECTED
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != wanted or not fields[2].endswith(":0000"):
            continue
        address, _, port = fields[1].partition(":")
        found.append(
            Socket(protocol, address_of(address), int(port, 16), int(fields[7]), int(fields[9]))
        )
    return found


def address_of(digits: str) -> str:
    """An address of 8 or 32 hexadecimal digits, as the kernel prints it.

    >>> address_of("0100007F") if sys.byteorder == "little" else "127.0.0.1"
    '127.0.0.1'
    """
    words = [
        int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)
    ]
    return str(ipaddress.ip_address(b"".join(words)))


def parse_users(passwd: str) -> dict[int, str]:
    """Names by number from passwd(5); of several names for a number the first one counts."""
    found: dict[int, str] = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():
            found.setdefault(int(fields[2]), fields[0])
    return found


def ports_of(
    sockets: list[Socket],
    *,
    users: Mapping[int, str],
    programs: Mapping[int, set[str]],
    left_out: tuple[int, int],
    hidden: bool,
) -> list[Port]:
    """One row per protocol, address, port and user, with every program that holds it.

    `programs` are names by inode; `hidden` says that some holders could not be seen.
    """
    rows: dict[tuple[str, int, str, str], set[str]] = {}
    for item in sockets:
        low, high = left_out
        passing = item.protocol == "udp" and low <= item.port <= high
        if passing and (hidden or item.inode in programs):
            continue
        key = (item.protocol, item.port, item.address, users.get(item.uid, str(item.uid)))
        rows.setdefault(key, set()).update(programs.get(item.inode, ()))
    return [
        Port("tcp" if protocol == "tcp" else "udp", address, port, user, sorted(names) or None)
        for (protocol, port, address, user), names in sorted(rows.items())
    ]


def collect(sources: Sources) -> Ports:
    """Read the kernel's tables, then look for the holders among the processes."""
    seen = _sockets(sources)
    words = (sources.line("/proc/sys/net/ipv4/ip_local_port_range") or "32768 60999").split()
    left_out = (int(words[0]), int(words[1]))
    programs, hidden = _holders(sources, {item.inode for item in seen})
    still_there = set(_sockets(sources))  # one that was closed meanwhile has no holder to find
    ports = ports_of(
        [item for item in seen if item in still_there],
        users=parse_users(sources.text("/etc/passwd")),
        programs=programs,
        left_out=left_out,
        hidden=hidden,
    )
    gaps = {}
    if any(port.programs is None for port in ports):
        gaps["programs"] = (
            "only root sees the programs of others"
            if hidden
            else "no process here holds some of them: the kernel or another namespace does"
        )
    return Ports(ports=ports, udp_left_out=left_out, gaps=gaps)


def _sockets(sources: Sources) -> list[Socket]:
    found: list[Socket] = []
    for table in TABLES:
        path = f"/proc/net/{table}"
        if table in ("tcp", "udp") or sources.exists(path):  # those of IPv6 may be switched off
            found += parse_sockets("tcp" if table < "u" else "udp", sources.text(path))
    return found


def _holders(sources: Sources, inodes: set[int]) -> tuple[dict[int, set[str]], bool]:
    """Names of processes by inode of the socket, and whether some could not be looked into."""
    found: dict[int, set[str]] = {}
    hidden = False
    for pid in sources.listed("/proc"):
        if not pid.isdecimal():
            continue
        try:
            numbers = sources.names(f"/proc/{pid}/fd")
        except PermissionError:
            hidden = True
            continue
        except OSError:  # the process has ended
            continue
        held = set()
        for number in numbers:
            try:
                match = _INODE.match(sources.link(f"/proc/{pid}/fd/{number}"))
            except OSError:  # the file was closed
                continue
            if match and int(match[1]) in inodes:
                held.add(int(match[1]))
        if held:
            name = sources.line(f"/proc/{pid}/comm")
            for inode in held if name else ():
                found.setdefault(inode, set()).add(name or "")
    return found, hidden


SECTION = Section("ports", 1, collect, every_s=300)
