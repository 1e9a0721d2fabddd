"""What this machine judges orders by, read anew each time."""

from __future__ import annotations

from agent.config import AgentHome
from agent.link.identity import Credentials
from agent.tasks.revoked import load_revocations
from agent.tasks.verify import Believed
from protocol.errors import SteadError
from protocol.revocation import Revocations


def load_believed(home: AgentHome, known: Credentials) -> Believed:
    """The root and who this machine is, with its own settings and the list as they are now.

    Raises INVALID or PRECONDITION when the settings cannot be read.
    """
    revocations: Revocations | SteadError
    try:
        revocations = load_revocations(home, known.root)
    except SteadError as error:
        revocations = error
    settings = home.load_settings()
    return Believed(known.root, known.identity, settings.deny, settings.read_only, revocations)
