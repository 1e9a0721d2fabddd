"""HTTP proxies: who is asked, and how a connection is asked for (RFC 9110, section 9.3.6).

Pure. gRPC asks by itself once it is told the proxy; `protocol.tls` asks in the same way
where it looks at certificates before there is a channel.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from protocol.errors import InvalidError
from protocol.shown import shown_text

NO_PROXY = "none"
"""The setting that says so, whatever the environment says."""

VARIABLES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
"""What is read of an environment. `https_proxy` may hold a password."""

MAX_ANSWER_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. As text it is shown without its password."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """With user and password, as gRPC reads it."""
        return str(self).replace("://", f"://{self._credentials}@", 1) if self.user else str(self)

    @property
    def _credentials(self) -> str:
        return f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"


def parse_proxy(text: str) -> Proxy:
    """Read `http://[user:password@]host:port`; INVALID for anything else.

    What is wrong is told without the text, which may hold a password.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError as error:
        raise InvalidError(f"the proxy's address cannot be read; {_FORM}") from error
    if _UNFIT.search(text) or parts.scheme.lower() != "http" or not host or not port:
        raise InvalidError(f"this is no address of an HTTP proxy; {_FORM}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidError(f"a proxy's address ends with its port; {_FORM}")
    if ":" in user or _UNFIT.search(user) or (password and not user):
        raise InvalidError(f"the proxy's user cannot be told from its password; {_FORM}")
    return Proxy(host, port, user, password)


_FORM = "write it as http://[user:password@]host:port, with %40 for an @ in the password"


def proxy_for(host: str, setting: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for connections to a host; None to connect directly.

    `setting` comes first: an address, or `NO_PROXY`. Where it is empty, `https_proxy` of the
    environment counts. `no_proxy` of the environment exempts hosts from either. Raises INVALID.
    """
    if setting.lower() == NO_PROXY:
        return None
    text = setting or _variable(environment, "https_proxy")
    if not text or is_exempt(host, _variable(environment, "no_proxy")):
        return None
    return parse_proxy(text)


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper(), "")


def is_exempt(host: str, exempt: str) -> bool:
    """Whether a list like that of `no_proxy` has a host: names with all below them, networks,
    or `*` for every host.
    """
    wanted = host.lower().rstrip(".")
    for word in re.split(r"[,\s]+", exempt.lower()):
        name = word.lstrip(".").rstrip(".")
        if word == "*" or (name and (wanted == name or wanted.endswith("." + name))):
            return True
        if name and _is_within(wanted, word):
            return True
    return False


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def connect_request(address: str, proxy: Proxy) -> bytes:
    """What asks a proxy for a connection to `host:port`."""
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.user:
        known = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {known}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def is_whole(answer: bytes | bytearray) -> bool:
    """Whether an answer goes up to the empty line that ends it."""
    return answer.endswith((b"\r\n\r\n", b"\n\n"))


def refusal_of(answer: bytes, address: str, proxy: Proxy) -> str | None:
    """Why a proxy's answer is no connection, with the next step; None when it is one."""
    status = _STATUS.match(answer)
    if status is None:
        return f"what answers at {proxy} is no HTTP proxy; look at the proxy's address"
    code = int(status[1])
    if 200 <= code < 300:
        if is_whole(answer):
            return None
        return f"the proxy {proxy} did not end its answer; look at the proxy's log"
    words = shown_text((status[2] or b"").decode(errors="replace"), longest=80)
    said = f"{code} {words}".strip()
    if code == 407:
        step = "give it a user and a password that it knows, as http://user:password@host:port"
    elif code in (403, 405):
        step = f"let it allow CONNECT to {address}"
    else:
        step = f"can the proxy reach {address}?"
    return f"the proxy {proxy} refused the connection ({said}); {step}"
