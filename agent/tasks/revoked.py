"""Keep the newest list of revoked operators, whoever brings it."""

from __future__ import annotations

from cryptography import x509

from agent.config import AgentHome
from agent.host import log
from agent.host.files import read_if_there, write_atomically
from protocol.codec import read_revocations
from protocol.errors import Code, SteadError
from protocol.revocation import NO_REVOCATIONS, Revocations, newer


def load_revocations(home: AgentHome, root: x509.Certificate) -> Revocations:
    """The list that this machine keeps; version 0 when it was never given one.

    Raises PRECONDITION when it is damaged: nobody is believed on the word of half a list.
    """
    try:
        data = read_if_there(home.revocations)
        return NO_REVOCATIONS if data is None else read_revocations(data, root)
    except (OSError, SteadError) as error:
        raise SteadError(
            f"the list of revoked operators in {home.revocations} cannot be used: {error}; put "
            "it back from a copy, or remove it and have the agent connect again",
            code=Code.PRECONDITION,
        ) from error


def take_revocations(home: AgentHome, root: x509.Certificate, data: bytes) -> Revocations:
    """Keep a list that anybody may have sent when it is newer; return the one in force.

    Durable when this returns. Raises BAD_SIGNATURE for one that this root did not sign,
    REPLAYED for an old one, STORE_FULL when it cannot be kept.
    """
    present = load_revocations(home, root)
    offered = read_revocations(data, root)
    if not newer(present, offered):
        return present
    write_atomically(home.revocations, data)
    log.info("revocations_taken", version=offered.version, operators=len(offered.operators))
    return offered


def take_along(home: AgentHome, root: x509.Certificate, data: bytes) -> None:
    """Keep the list that came with an order. One that is older than what is kept is no harm:
    the order was signed before the newer one. Raises like `take_revocations` otherwise.
    """
    try:
        take_revocations(home, root, data)
    except SteadError as error:
        if error.code is not Code.REPLAYED:
            raise
