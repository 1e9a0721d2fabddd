"""Enrollment tokens as the controller knows them: made, listed, revoked, used.

The controller keeps a hash of the half of the secret that it checks, and passes the
bundle, which the other half opens, on unread. All of this is done in the caller's
transaction.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from controller.audit.log import append
from controller.authority.failures import EnrollmentRefusedError
from controller.db.schema import tokens
from controller.fleet.names import check_tags
from controller.fleet.scope import require_tenant, visible
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity
from protocol.ids import TenantId, TokenId, check_id
from protocol.token import hash_secret

HASH_BYTES = 32
MAX_BUNDLE_BYTES = 4096
MAX_USES = 10_000
SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as the command line made it; its secrets stay there."""

    id: str
    tenant: str
    secret_hash: bytes
    bundle: bytes
    uses: int
    lifetime: timedelta
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedToken:
    """A token without its secret. Times are UTC."""

    id: TokenId
    tenant: TenantId
    uses: int
    uses_left: int
    expires_at: datetime
    revoked_at: datetime | None
    created_by: str


@dataclass(frozen=True, slots=True)
class UsableToken:
    """What a good token lets its holder have."""

    id: TokenId
    tenant: TenantId
    bundle: bytes
    tags: tuple[str, ...]


def create(
    connection: Connection, operator: OperatorIdentity, token: NewToken, *, now: datetime
) -> datetime:
    """Record a token, and return when it ends; INVALID, NOT_FOUND or ALREADY_EXISTS."""
    check_id("tk", token.id)
    tenant = require_tenant(connection, operator, token.tenant)
    if len(token.secret_hash) != HASH_BYTES:
        raise InvalidError(f"a token's secret hash has {HASH_BYTES} bytes")
    if len(token.bundle) > MAX_BUNDLE_BYTES:
        raise InvalidError(f"a token's bundle has at most {MAX_BUNDLE_BYTES} bytes")
    if not 1 <= token.uses <= MAX_USES:
        raise InvalidError(f"a token has 1 to {MAX_USES} uses")
    if not SHORTEST <= token.lifetime <= LONGEST:
        raise InvalidError(f"a token is good for 1 second to {LONGEST.days} days")
    check_tags(token.tags)
    if connection.scalar(select(tokens.c.id).where(tokens.c.id == token.id)):
        raise SteadError("there is a token with this id; make a new one", code=Code.ALREADY_EXISTS)
    expires_at = now + token.lifetime
    connection.execute(
        insert(tokens),
        {
            "id": token.id,
            "tenant_id": tenant,
            "secret_hash": token.secret_hash,
            "bundle": token.bundle,
            "uses": token.uses,
            "uses_left": token.uses,
            "expires_at": expires_at,
            "tags": msgspec.json.encode(sorted(set(token.tags))).decode(),
            "created_by": operator.name,
            "created_at": now,
        },
    )
    body = {"token": token.id, "uses": token.uses, "expires_at": expires_at.isoformat()}
    append(connection, tenant, f"operator/{operator.name}", "token_created", body, now)
    return expires_at


def listed(
    connection: Connection, operator: OperatorIdentity, tenant_id: str
) -> list[RecordedToken]:
    """A tenant's tokens, newest first; NOT_FOUND beyond the operator's scope."""
    tenant = require_tenant(connection, operator, tenant_id)
    rows = connection.execute(
        select(tokens).where(tokens.c.tenant_id == tenant).order_by(tokens.c.id.desc())
    )
    return [
        RecordedToken(
            TokenId(row.id),
            tenant,
            row.uses,
            row.uses_left,
            row.expires_at,
            row.revoked_at,
            row.created_by,
        )
        for row in rows
    ]


def revoke(
    connection: Connection, operator: OperatorIdentity, token_id: str, *, now: datetime
) -> None:
    """Make a token worthless; NOT_FOUND beyond the operator's scope. Again changes nothing."""
    row = connection.execute(
        select(tokens).where(tokens.c.id == token_id, visible(tokens.c.tenant_id, operator))
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token {token_id[:80]!r}; see `stead token ls`")
    if row.revoked_at is None:
        connection.execute(update(tokens).where(tokens.c.id == row.id).values(revoked_at=now))
        actor = f"operator/{operator.name}"
        append(connection, row.tenant_id, actor, "token_revoked", {"token": row.id}, now)


def check(connection: Connection, token_id: str, secret: bytes) -> Row[Any]:
    """The token's row when the secret fits and it was not revoked; expiry and uses are not asked.

    One message for an unknown id and for a wrong secret, so that ids cannot be probed.
    """
    row = connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
    expected = row.secret_hash if row is not None else bytes(HASH_BYTES)
    fits = hmac.compare_digest(hash_secret(secret), expected)
    if row is None or not fits:
        raise EnrollmentRefusedError(
            "this token is not known here; copy the whole line that `stead token new` printed, "
            "or make a new token",
            code=Code.TOKEN_INVALID,
            tenant=None if row is None else row.tenant_id,
        )
    if row.revoked_at is not None:
        raise EnrollmentRefusedError(
            "this token was revoked; ask for a new one",
            code=Code.TOKEN_INVALID,
            tenant=row.tenant_id,
        )
    return row


def spend(connection: Connection, row: Row[Any], *, now: datetime) -> None:
    """Take one use off a token that was checked; TOKEN_EXPIRED or TOKEN_USED."""
    if now >= row.expires_at:
        raise EnrollmentRefusedError(
            f"this token ended at {row.expires_at:%Y-%m-%d %H:%M}Z; make a new one with "
            "`stead token new`",
            code=Code.TOKEN_EXPIRED,
            tenant=row.tenant_id,
        )
    if row.uses_left < 1:
        raise EnrollmentRefusedError(
            f"this token had {row.uses} use{'s' if row.uses > 1 else ''} and none is left; make "
            "a new one with `stead token new`",
            code=Code.TOKEN_USED,
            tenant=row.tenant_id,
        )
    connection.execute(
        update(tokens).where(tokens.c.id == row.id).values(uses_left=tokens.c.uses_left - 1)
    )


def usable(row: Row[Any]) -> UsableToken:
    """What the token's holder gets."""
    tags = msgspec.json.decode(row.tags, type=tuple[str, ...])
    return UsableToken(TokenId(row.id), TenantId(row.tenant_id), row.bundle or b"", tags)
