"""What psutil tells of a machine where there is no /proc. Nothing here is one system's own."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import psutil

from agent.inventory.sections.filesystems import Filesystems, Mount
from agent.inventory.sections.network import Interface
from agent.inventory.sections.ports import Port, Ports
from agent.inventory.sections.users import Login, Users
from agent.inventory.sources import Sources
from protocol.errors import Code, SteadError, UnavailableError

DYNAMIC_PORTS = (49_152, 65_535)
"""Where Windows and macOS give a program a port of their own choice (RFC 6335)."""

_REMOTE = frozenset({"smbfs", "nfs", "afpfs", "webdav", "remote"})
T = TypeVar("T")


def may_be_told(gaps: dict[str, str], name: str, ask: Callable[[], T], otherwise: T) -> T:
    """What is asked for; where it cannot be had, the reason goes to the gaps.

    Raises TIMED_OUT: then the section is late, and nothing is known of it.
    """
    try:
        return ask()
    except SteadError as error:
        if error.code is Code.TIMED_OUT:
            raise
        gaps[name] = str(error)
    except (psutil.Error, OSError, RuntimeError) as error:
        # The last is psutil's where Windows' performance counters are switched off.
        gaps[name] = str(error) or type(error).__name__
    return otherwise


def booted_at() -> str:
    """When the machine was started, to the minute: by some clocks it wanders by a second."""
    at = datetime.fromtimestamp(round(psutil.boot_time() / 60) * 60, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def filesystems(sources: Sources) -> Filesystems:
    """Mounts of disks that are there; the size of a remote one is not asked for."""
    mounts = []
    gaps: dict[str, str] = {}
    for part in psutil.disk_partitions(all=False):
        options = sorted(filter(None, part.opts.split(",")))
        remote = part.fstype.lower() in _REMOTE or "remote" in options
        size = None
        if not remote and "cdrom" not in options:

            def asked(path: str = part.mountpoint) -> int | None:
                return sources.capacity(path).total_bytes

            size = may_be_told(gaps, f"mounts.{part.mountpoint}", asked, None)
        mounts.append(Mount(part.mountpoint, part.device, part.fstype, options, remote, size))
    return Filesystems(mounts=sorted(mounts), gaps=gaps)


def interfaces(addresses: Mapping[str, Iterable[Any]], stats: Mapping[str, Any]) -> list[Interface]:
    """Interfaces from `net_if_addrs` and `net_if_stats`, by name.

    Temporary addresses of IPv6 are not told apart from others, so only those that are local to
    the link and those of IPv4 count with certainty; all are kept.
    """
    found = []
    for name in sorted(addresses):
        mac, texts = None, []
        for one in addresses[name]:
            if one.family == psutil.AF_LINK:
                mac = one.address.replace("-", ":").lower() or None
            elif one.family in (socket.AF_INET, socket.AF_INET6):
                texts.append(_with_prefix(one.address.partition("%")[0], one.netmask))
        told = stats.get(name)
        loopback = any(text.startswith(("127.", "::1")) for text in texts)
        kind: Literal["loopback", "physical", "virtual"] = (
            "loopback" if loopback else "physical" if mac else "virtual"
        )
        found.append(
            Interface(
                name=name,
                kind=kind,
                mac=mac,
                mtu=told.mtu if told else None,
                up=bool(told and told.isup),
                addresses=sorted(texts),
            )
        )
    return found


def _with_prefix(address: str, netmask: str | None) -> str:
    """An address with the length of its prefix, where the system tells that."""
    if not netmask:
        return address
    bits = int(ipaddress.ip_address(netmask)).bit_count()
    return f"{address}/{bits}"


def ports(_: Sources) -> Ports:
    """Ports that are listened on. Raises `UnavailableError` where they may not be seen."""
    try:
        sockets = psutil.net_connections(kind="inet")
    except psutil.AccessDenied as error:
        raise UnavailableError("only root may see the sockets of all processes") from error
    return Ports(ports=ports_of(sockets, program_of), udp_left_out=DYNAMIC_PORTS)


def ports_of(sockets: Iterable[Any], who: Callable[[int], tuple[str, str]]) -> list[Port]:
    """Ports from `net_connections`; `who` gives the user and the name of a process."""
    found: dict[tuple[Literal["tcp", "udp"], int, str], tuple[str, set[str]]] = {}
    for one in sockets:
        protocol: Literal["tcp", "udp"] = "tcp" if one.type == socket.SOCK_STREAM else "udp"
        if not one.laddr or (protocol == "tcp" and one.status != psutil.CONN_LISTEN):
            continue
        first, last = DYNAMIC_PORTS
        if protocol == "udp" and first <= one.laddr.port <= last:
            continue
        user, name = who(one.pid) if one.pid else ("", "")
        key = (protocol, one.laddr.port, one.laddr.ip.partition("%")[0])
        known, names = found.setdefault(key, (user, set()))
        names.update(filter(None, (name,)))
        found[key] = (known or user, names)
    return [
        Port(protocol, address, port, user, sorted(names) or None)
        for (protocol, port, address), (user, names) in sorted(found.items())
    ]


def program_of(pid: int) -> tuple[str, str]:
    """The user and the name of a process; empty where they may not be seen."""
    try:
        process = psutil.Process(pid)
        return process.username(), process.name()
    except (psutil.Error, OSError):
        return "", ""


def users(_: Sources) -> Users:
    """Who is logged in."""
    logins = [
        Login(
            name=one.name,
            terminal=one.terminal or "",
            origin=one.host or None,
            since=f"{datetime.fromtimestamp(one.started, UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        for one in psutil.users()
    ]
    return Users(source="psutil", logins=sorted(logins))
