"""Move to another controller of the same root, as an operator has ordered.

The new address is tried first and the old one stays the fallback, until the new one has
welcomed this machine. Who does not belong to the root of this machine is never believed, so
an address alone moves nothing.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from agent.config import AgentHome, Settings, render_settings
from agent.host import clock
from agent.host.files import read_if_there, write_atomically
from agent.link.identity import Credentials
from protocol.address import split_address
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.tls import shown_certificate

PROBE_S = 5.0
RETRY_S = 900.0
"""A new address that did not welcome this machine is tried again after so long."""


class Rehoming(msgspec.Struct, frozen=True):
    """The file `rehoming`. It stays when it is done, against older orders."""

    link_address: str
    enrollment_address: str
    issued_at: clock.Moment
    done: bool = False


def load_rehoming(home: AgentHome) -> Rehoming | None:
    """What was ordered last, done or not; InvalidError for a damaged file."""
    data = read_if_there(home.rehoming)
    try:
        return None if data is None else msgspec.json.decode(data, type=Rehoming)
    except UNREADABLE as error:
        raise InvalidError(
            f"{home.rehoming} is damaged: {error}; delete it, then order it again"
        ) from error


def keep_rehoming(home: AgentHome, link: str, enrollment: str, issued_at: datetime) -> None:
    """Note where to go. INVALID for what is no address, REPLAYED for an order that is old."""
    for address in (link, enrollment):
        split_address(address)
    last = load_rehoming(home)
    if last is not None and issued_at < last.issued_at:
        raise SteadError(
            f"this machine was told later where to go, at {last.issued_at:%Y-%m-%d %H:%M:%S}Z",
            code=Code.REPLAYED,
        )
    write_atomically(home.rehoming, msgspec.json.encode(Rehoming(link, enrollment, issued_at)))


def where_to(home: AgentHome, settings: Settings) -> Settings | None:
    """The settings with the new addresses when there are some to try and one answers there."""
    try:
        wanted = load_rehoming(home)
    except InvalidError:
        return None
    if wanted is None or wanted.done:
        return None
    new = msgspec.structs.replace(
        settings,
        link_address=wanted.link_address,
        enrollment_address=wanted.enrollment_address,
    )
    try:
        shown_certificate(new.link_address, timeout=PROBE_S, proxy=new.proxy_for(new.link_address))
    except SteadError:
        return None
    return new


def arrived(home: AgentHome, credentials: Credentials) -> None:
    """The new controller has welcomed this machine: its addresses are the settings' now."""
    settings = credentials.settings
    write_atomically(home.settings, render_settings(settings))
    wanted = load_rehoming(home)
    if wanted is not None and wanted.link_address == settings.link_address:
        done = msgspec.structs.replace(wanted, done=True)
        write_atomically(home.rehoming, msgspec.json.encode(done))
