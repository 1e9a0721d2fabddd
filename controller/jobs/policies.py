"""Tenants' policies that the root signed, as the controller keeps and tells them: all of them.

The controller can keep one back and cannot make one; see `protocol.policy`. What these
functions do they do in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection, insert, select

from controller.audit.log import append
from controller.db.schema import policies
from protocol.ids import TenantId
from protocol.policy import Policy, newer_policy, no_policy
from protocol.policy_codec import read_policy


@dataclass(frozen=True, slots=True)
class Published:
    """A policy as the root signed it, and who handed it in when."""

    data: bytes
    published_at: datetime
    published_by: str


def topic(tenant: str) -> str:
    """What `controller.jobs.feed` wakes when a tenant's policy changes."""
    return f"policy:{tenant}"


def kept(connection: Connection, tenant: TenantId) -> bytes:
    """The tenant's newest policy as the root signed it; empty when there is none."""
    query = (
        select(policies.c.data)
        .where(policies.c.tenant_id == tenant)
        .order_by(policies.c.version.desc())
        .limit(1)
    )
    return connection.scalar(query) or b""


def in_force(connection: Connection, tenant: TenantId, root: x509.Certificate) -> Policy:
    """The tenant's newest policy, read."""
    data = kept(connection, tenant)
    return read_policy(data, root, tenant=tenant) if data else no_policy(tenant)


def history(connection: Connection, tenant: TenantId) -> Sequence[Published]:
    """All policies of a tenant, newest first."""
    query = (
        select(policies).where(policies.c.tenant_id == tenant).order_by(policies.c.version.desc())
    )
    return [
        Published(row.data, row.published_at, row.published_by) for row in connection.execute(query)
    ]


def take(
    connection: Connection,
    tenant: TenantId,
    data: bytes,
    *,
    root: x509.Certificate,
    operator: str,
    now: datetime,
) -> bool:
    """Keep a policy when it is newer; False for the one in force.

    BAD_SIGNATURE for one that this root did not sign, WRONG_TENANT for another tenant's,
    REPLAYED for an old one.
    """
    offered = read_policy(data, root, tenant=tenant)
    if not newer_policy(in_force(connection, tenant, root), offered):
        return False
    connection.execute(
        insert(policies).values(
            tenant_id=tenant,
            version=offered.version,
            data=data,
            published_at=now,
            published_by=operator,
        )
    )
    body = {"version": offered.version, "rules": [rule.subject for rule in offered.rules]}
    append(connection, tenant, f"operator/{operator}", "policy_published", body, now)
    return True
