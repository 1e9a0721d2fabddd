"""Addresses of the network, as people and tokens write them."""

from __future__ import annotations

import re

from protocol.errors import Code, SteadError

_PORT = re.compile(r"[0-9]{1,5}\Z")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")
_LONGEST = 253


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port"; INVALID when it is neither.

    Nor is it with a host that no name server could be asked for, such as "new..example.org".
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    numbered = bool(colon and _PORT.match(port)) and 0 < int(port) < 65536
    if not numbered or not _can_be_asked_for(host):
        raise SteadError(f"{address[:200]!r} is not host:port", code=Code.INVALID)
    return host, int(port)


def _can_be_asked_for(host: str) -> bool:
    if not 0 < len(host) <= _LONGEST or _UNFIT.search(host):
        return False
    try:
        # As the system does it before it asks: empty and overlong labels end here.
        host.encode("idna")
    except UnicodeError:
        return False
    return True
