"""Network interfaces with their addresses, default gateways, name servers.

Formats: the kernel's `/sys/class/net`, `/proc/net/if_inet6`, `/proc/net/route`,
`/proc/net/ipv6_route`; resolv.conf(5). IPv6 privacy addresses (RFC 8981) change by
themselves every day and are left out.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources
from protocol.errors import UnavailableError

NET = "/sys/class/net"
IFF_UP = 0x1
IFA_F_TEMPORARY = 0x1
RTF_UP_GATEWAY = 0x1 | 0x2
ARPHRD_LOOPBACK = 772
STUB_RESOLVER = "127.0.0.53"
RESOLVED = "/run/systemd/resolve/resolv.conf"


class Interface(msgspec.Struct, frozen=True):
    """`up` is what the administrator set, not whether a cable is plugged in."""

    name: str
    kind: Literal["loopback", "physical", "virtual"]
    mac: str | None
    mtu: int | None
    up: bool
    addresses: list[str]


class Gateway(msgspec.Struct, frozen=True, order=True):
    """Where packets for the rest of the world go."""

    address: str
    interface: str


class Resolver(msgspec.Struct, frozen=True):
    """Name servers in the order they are asked, and the domains searched."""

    servers: list[str]
    search: list[str]


class Network(Facts, frozen=True, kw_only=True):
    """Interfaces by name, gateways by address."""

    interfaces: list[Interface]
    gateways: list[Gateway]
    dns: Resolver


def parse_if_inet6(text: str) -> dict[str, list[str]]:
    """IPv6 addresses with prefix length by interface, temporary ones left out."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6 and not int(fields[4], 16) & IFA_F_TEMPORARY:
            address = ipaddress.IPv6Address(int(fields[0], 16))
            found.setdefault(fields[5], []).append(f"{address}/{int(fields[2], 16)}")
    return found


def parse_routes_v4(text: str) -> list[Gateway]:
    """Default gateways in `/proc/net/route`, whose numbers are in the byte order of the host."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or int(fields[3], 16) & RTF_UP_GATEWAY != RTF_UP_GATEWAY:
            continue
        if int(fields[1], 16) == 0 and int(fields[7], 16) == 0:
            raw = bytes.fromhex(fields[2])[::-1]
            found.append(Gateway(str(ipaddress.IPv4Address(raw)), fields[0]))
    return sorted(set(found))


def parse_routes_v6(text: str) -> list[Gateway]:
    """Default gateways in `/proc/net/ipv6_route`."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or int(fields[8], 16) & RTF_UP_GATEWAY != RTF_UP_GATEWAY:
            continue
        if int(fields[0], 16) == 0 and int(fields[1], 16) == 0:
            found.append(Gateway(str(ipaddress.IPv6Address(int(fields[4], 16))), fields[9]))
    return sorted(set(found))


def parse_resolv_conf(text: str) -> Resolver:
    """The servers and search domains; of several search lines the last one counts."""
    servers: list[str] = []
    search: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1 and words[1] not in servers:
            servers.append(words[1])
        elif words[:1] in (["search"], ["domain"]):
            search = words[1:]
    return Resolver(servers, search)


def collect(sources: Sources) -> Network:
    """Read the kernel's tables; those of IPv6 are missing where it is switched off."""
    gaps: dict[str, str] = {}
    v4 = sources.addresses_v4()
    v6 = parse_if_inet6(_optional(sources, "/proc/net/if_inet6"))
    interfaces = [
        _interface(sources, name, sorted([*v4.get(name, ()), *v6.get(name, ())]))
        for name in sources.listed(NET)
        if sources.exists(f"{NET}/{name}/flags")  # bonding_masters is a file among them
    ]
    return Network(
        interfaces=sorted(interfaces, key=lambda interface: interface.name),
        gateways=sorted(
            parse_routes_v4(_optional(sources, "/proc/net/route"))
            + parse_routes_v6(_optional(sources, "/proc/net/ipv6_route"))
        ),
        dns=_resolver(sources, gaps),
        gaps=gaps,
    )


def _optional(sources: Sources, path: str) -> str:
    return sources.text(path) if sources.exists(path) else ""


def _interface(sources: Sources, name: str, addresses: list[str]) -> Interface:
    at = f"{NET}/{name}"
    kind: Literal["loopback", "physical", "virtual"] = "virtual"
    if sources.number(f"{at}/type") == ARPHRD_LOOPBACK:
        kind = "loopback"
    elif sources.exists(f"{at}/device"):
        kind = "physical"
    mac = sources.line(f"{at}/address")
    return Interface(
        name=name,
        kind=kind,
        mac=mac if mac and mac.strip("0:") else None,
        mtu=sources.number(f"{at}/mtu"),
        up=bool(int(sources.line(f"{at}/flags") or "0", 16) & IFF_UP),
        addresses=addresses,
    )


def _resolver(sources: Sources, gaps: dict[str, str]) -> Resolver:
    try:
        found = parse_resolv_conf(sources.text("/etc/resolv.conf"))
        if STUB_RESOLVER in found.servers and sources.exists(RESOLVED):
            return parse_resolv_conf(sources.text(RESOLVED))
    except UnavailableError as error:
        gaps["dns"] = str(error)
        return Resolver([], [])
    return found


SECTION = Section("network", 1, collect, every_s=600)
