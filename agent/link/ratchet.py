"""The token by which a copy of this machine is found out, as it is kept here.

Shown at every Hello; the next one comes with Welcome, is durable here before it is
acknowledged, and counts from then on. See `controller.authority.ratchet`.
"""

from __future__ import annotations

from agent.config import AgentHome
from agent.host.files import read_if_there, write_atomically
from agent.host.hardware import hardware
from protocol.holder import LONGEST_TOKEN, Holder


def load_holder(home: AgentHome) -> Holder:
    """What to show at Hello."""
    return Holder(load_token(home), hardware())


def load_token(home: AgentHome) -> bytes:
    """The newest token; empty when there is none that could be shown."""
    token = read_if_there(home.ratchet) or b""
    return token if len(token) <= LONGEST_TOKEN else b""


def keep_token(home: AgentHome, token: bytes) -> None:
    """Make the next token durable. Raises STORE_FULL; then the one before goes on counting."""
    write_atomically(home.ratchet, token)
