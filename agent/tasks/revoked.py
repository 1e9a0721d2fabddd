"""Keep the newest list of revoked operators, whoever brings it."""

from __future__ import annotations

from functools import partial

from cryptography import x509

from agent.config import AgentHome
from agent.host import log
from agent.tasks.signed import Kept
from protocol.codec import read_revocations
from protocol.errors import SteadError
from protocol.revocation import NO_REVOCATIONS, Revocations, newer


def kept_list(home: AgentHome, root: x509.Certificate) -> Kept[Revocations]:
    """Where the list is kept, and how it is checked."""
    return Kept(
        home.revocations,
        partial(read_revocations, root=root),
        newer,
        NO_REVOCATIONS,
        "the list of revoked operators",
    )


def load_revocations(home: AgentHome, root: x509.Certificate) -> Revocations:
    """The list that this machine keeps; see `Kept.load`."""
    return kept_list(home, root).load()


def take_revocations(home: AgentHome, root: x509.Certificate, data: bytes) -> Revocations:
    """Keep a list when it is newer; return the one in force; see `Kept.take`."""
    listed, was_taken = kept_list(home, root).take(data)
    if was_taken:
        log.info("revocations_taken", version=listed.version, operators=len(listed.operators))
    return listed


def take_along(home: AgentHome, root: x509.Certificate, data: bytes) -> None:
    """Keep the list that came with an order; see `Kept.take_along`."""
    kept_list(home, root).take_along(data)


def revocations_refused(home: AgentHome, root: x509.Certificate, data: bytes) -> str:
    """Take a list that the controller tells; why not, or empty when all is well."""
    try:
        take_revocations(home, root, data)
    except SteadError as error:
        log.warning("revocations_refused", code=error.code, reason=str(error))
        return str(error)
    return ""
