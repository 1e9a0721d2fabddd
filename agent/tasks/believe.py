"""What this machine judges orders by, read anew each time."""

from __future__ import annotations

from agent.config import AgentHome
from agent.link.identity import Credentials
from agent.tasks.policy import load_policy
from agent.tasks.revoked import load_revocations
from agent.tasks.verify import Believed
from protocol.ceiling import Ceiling
from protocol.errors import SteadError
from protocol.policy import Policy
from protocol.revocation import Revocations


def load_believed(home: AgentHome, known: Credentials) -> Believed:
    """The root, who this machine is, and its own settings, the list and the policy as of now.

    Raises INVALID or PRECONDITION when the settings cannot be read.
    """
    revocations: Revocations | SteadError
    try:
        revocations = load_revocations(home, known.root)
    except SteadError as error:
        revocations = error
    policy: Policy | SteadError
    try:
        policy = load_policy(home, known.root, known.identity.tenant)
    except SteadError as error:
        policy = error
    settings = home.load_settings()
    return Believed(
        known.root, known.identity, settings.deny, settings.read_only, revocations, policy
    )


def ceiling_of(home: AgentHome, known: Credentials) -> Ceiling | None:
    """What this machine's own settings rule out; None when that cannot be read just now."""
    try:
        believed = load_believed(home, known)
        version = believed.policy_in_force.version
    except SteadError:
        return None
    return Ceiling(tuple(sorted(believed.deny)), believed.read_only, version)
