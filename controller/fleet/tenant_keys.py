"""The recovery keys that tenants had, without their secrets, and how they are passed on.

All in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from controller.audit.log import append
from controller.db.schema import key_shares, operators, tenant_keys, tenants, tokens
from controller.fleet.scope import require_tenant
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity
from protocol.ids import TenantId
from protocol.vault.epochs import names_of_link
from protocol.vault.point import key_id
from protocol.vault.share import MAX_SHARE_BYTES

RECOVERY_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class RecordedKey:
    """A recovery key's public half. `number` counts from 1; `link` is empty for the first."""

    number: int
    public: bytes
    link: bytes
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Share:
    """Recovery keys, sealed to the operator of that name and signed by another."""

    tenant: TenantId
    operator: str
    sealed: bytes
    certificate: bytes
    signature: bytes
    shared_at: datetime


def first(
    connection: Connection, tenant: TenantId, public: bytes, *, by: str, now: datetime
) -> None:
    """Note the key that a tenant begins with."""
    _insert(connection, tenant, RecordedKey(1, public, b"", now, by))


def check_link(present: bytes, public: bytes, link: bytes) -> bytes:
    """The name of the newer key; INVALID when the link is not from the one to the other."""
    if not len(present) == len(public) == RECOVERY_KEY_BYTES:
        raise InvalidError(f"a recovery key has {RECOVERY_KEY_BYTES} bytes")
    newer, older = names_of_link(link)
    if (newer, older) != (key_id(public), key_id(present)):
        raise InvalidError("the link is not one between these two recovery keys")
    return newer


def rotate(
    connection: Connection,
    operator: OperatorIdentity,
    tenant_id: str,
    *,
    present: bytes,
    public: bytes,
    link: bytes,
    now: datetime,
) -> tuple[RecordedKey, int]:
    """Put a key in the place of the present one; how many tokens are worthless now.

    The same act again answers as the first time, but for the tokens. PRECONDITION when
    another key is in force than the caller thinks.
    """
    tenant = require_tenant(connection, operator, tenant_id)
    check_link(present, public, link)
    newest, *_ = listed(connection, operator, tenant)
    if newest.public == public:
        return newest, 0
    if newest.public != present:
        raise SteadError(
            "the tenant has another recovery key than this profile thinks: "
            f"{newest.created_by} made it at {newest.created_at:%Y-%m-%d %H:%M}Z; have it "
            "shared with you (`stead tenant key share`) and look again",
            code=Code.PRECONDITION,
        )
    key = RecordedKey(newest.number + 1, public, link, now, operator.name)
    _insert(connection, tenant, key)
    connection.execute(update(tenants).where(tenants.c.id == tenant).values(recovery_public=public))
    good = (
        (tokens.c.tenant_id == tenant)
        & tokens.c.revoked_at.is_(None)
        & (tokens.c.uses_left > 0)
        & (tokens.c.expires_at > now)
    )
    revoked = connection.execute(update(tokens).where(good).values(revoked_at=now)).rowcount
    # Shares of before lack the new key.
    connection.execute(delete(key_shares).where(key_shares.c.tenant_id == tenant))
    body = {"number": key.number, "key": key_id(public).hex(), "revoked_tokens": revoked}
    append(connection, tenant, f"operator/{operator.name}", "tenant_key_rotated", body, now)
    return key, revoked


def listed(
    connection: Connection, operator: OperatorIdentity, tenant_id: str
) -> Sequence[RecordedKey]:
    """A tenant's keys, newest first, at least one; NOT_FOUND beyond the operator's scope."""
    tenant = require_tenant(connection, operator, tenant_id)
    rows = connection.execute(
        select(tenant_keys)
        .where(tenant_keys.c.tenant_id == tenant)
        .order_by(tenant_keys.c.number.desc())
    )
    return [
        RecordedKey(row.number, row.recovery_public, row.link, row.created_at, row.created_by)
        for row in rows
    ]


def share(connection: Connection, sender: OperatorIdentity, shared: Share) -> None:
    """Keep keys for another operator, in place of what was kept for the same one before.

    NOT_FOUND for an operator who is not known or may not see the tenant.
    """
    tenant = require_tenant(connection, sender, shared.tenant)
    if not shared.sealed or len(shared.sealed) > MAX_SHARE_BYTES:
        raise InvalidError("this is no share of recovery keys")
    row = connection.execute(
        select(operators).where(
            operators.c.name == shared.operator, operators.c.revoked_at.is_(None)
        )
    ).one_or_none()
    if row is None or (row.scope != "all" and tenant not in row.scope.split(",")):
        raise NotFoundError(
            f"there is no operator {shared.operator[:80]!r} who may see this tenant; "
            "`stead operator ls` lists them"
        )
    where = (key_shares.c.tenant_id == tenant) & (key_shares.c.operator == row.name)
    connection.execute(delete(key_shares).where(where))
    connection.execute(
        insert(key_shares),
        {
            "tenant_id": tenant,
            "operator": row.name,
            "sealed": shared.sealed,
            "certificate": shared.certificate,
            "signature": shared.signature,
            "shared_at": shared.shared_at,
        },
    )
    body = {"with": row.name}
    actor = f"operator/{sender.name}"
    append(connection, tenant, actor, "tenant_key_shared", body, shared.shared_at)


def shares_for(
    connection: Connection, operator: OperatorIdentity, tenant_id: str
) -> Sequence[Share]:
    """What was left for this operator of a tenant's keys: one share, or none."""
    tenant = require_tenant(connection, operator, tenant_id)
    rows = connection.execute(
        select(key_shares).where(
            key_shares.c.tenant_id == tenant, key_shares.c.operator == operator.name
        )
    )
    return [
        Share(tenant, row.operator, row.sealed, row.certificate, row.signature, row.shared_at)
        for row in rows
    ]


def _insert(connection: Connection, tenant: TenantId, key: RecordedKey) -> None:
    connection.execute(
        insert(tenant_keys),
        {
            "tenant_id": tenant,
            "number": key.number,
            "recovery_public": key.public,
            "link": key.link,
            "created_at": key.created_at,
            "created_by": key.created_by,
        },
    )
