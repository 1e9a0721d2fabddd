"""Addresses of the network, as people and tokens write them."""

from __future__ import annotations

import re

from protocol.errors import Code, SteadError

_PORT = re.compile(r"[0-9]{1,5}\Z")


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port"; INVALID when it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not _PORT.match(port) or not 0 < int(port) < 65536:
        raise SteadError(f"{address[:200]!r} is not host:port", code=Code.INVALID)
    return host, int(port)
