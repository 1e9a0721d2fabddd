"""What comes along with an order: the newest that its signer knew of what the root signs."""

from __future__ import annotations

from agent.config import AgentHome
from agent.tasks.policy import kept_policy
from agent.tasks.revoked import kept_list
from agent.tasks.verify import Believed
from protocol.order import Envelope


def take_what_came_along(home: AgentHome, believed: Believed, envelope: Envelope) -> None:
    """Keep the list and the policy beside an order where they are newer; see `Kept`."""
    if envelope.revocations:
        kept_list(home, believed.root).take_along(envelope.revocations)
    if envelope.policy:
        kept = kept_policy(home, believed.root, believed.identity.tenant)
        kept.take_along(envelope.policy)
