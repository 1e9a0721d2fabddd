"""Keep the newest policy of this machine's tenant, whoever brings it."""

from __future__ import annotations

from functools import partial

from cryptography import x509

from agent.config import AgentHome
from agent.host import log
from agent.tasks.signed import Kept
from protocol.errors import SteadError
from protocol.ids import TenantId
from protocol.policy import Policy, newer_policy, no_policy
from protocol.policy_codec import read_policy


def kept_policy(home: AgentHome, root: x509.Certificate, tenant: TenantId) -> Kept[Policy]:
    """Where the policy is kept, and how it is checked: another tenant's is no policy here."""
    return Kept(
        home.policy,
        partial(read_policy, root=root, tenant=tenant),
        newer_policy,
        no_policy(tenant),
        "the tenant's policy",
    )


def load_policy(home: AgentHome, root: x509.Certificate, tenant: TenantId) -> Policy:
    """The policy that this machine keeps; see `Kept.load`."""
    return kept_policy(home, root, tenant).load()


def take_policy(home: AgentHome, root: x509.Certificate, tenant: TenantId, data: bytes) -> Policy:
    """Keep a policy when it is newer; return the one in force; see `Kept.take`.

    Raises WRONG_TENANT for another tenant's besides.
    """
    policy, was_taken = kept_policy(home, root, tenant).take(data)
    if was_taken:
        log.info("policy_taken", version=policy.version, rules=len(policy.rules))
    return policy


def policy_refused(home: AgentHome, root: x509.Certificate, tenant: TenantId, data: bytes) -> str:
    """Take a policy that the controller tells; why not, or empty when all is well."""
    try:
        take_policy(home, root, tenant, data)
    except SteadError as error:
        log.warning("policy_refused", code=error.code, reason=str(error))
        return str(error)
    return ""
