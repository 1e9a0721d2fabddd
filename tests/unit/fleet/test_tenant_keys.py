"""Which recovery key of a tenant is in force, and who may pass keys on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, create_engine, select

from controller.authority.tokens import NewToken, create
from controller.db.migrate import upgrade
from controller.db.schema import tenants, tokens
from controller.fleet import tenant_keys
from controller.fleet.tenants import add
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.ids import TenantId, TokenId
from protocol.vault.epochs import link
from protocol.vault.keys import TenantKey

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TENANT = TenantId("tn_" + "0" * 26)
ANN = OperatorIdentity("ann", Role.ADMIN, None)
STRANGER = OperatorIdentity("eve", Role.ADMIN, frozenset({TenantId("tn_" + "9" * 26)}))
FIRST, SECOND, THIRD = (TenantKey(bytes([n]) * 32) for n in range(3))


def public(key: TenantKey) -> bytes:
    return key.secret.recovery_public


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as opened:
        upgrade(opened)
        add(opened, ANN, tenant_id=TENANT, name="acme", recovery_key=public(FIRST), now=NOW)
        yield opened
    engine.dispose()


def rotate(
    connection: Connection, new: TenantKey, old: TenantKey, by: OperatorIdentity = ANN
) -> tuple[int, int]:
    key, revoked = tenant_keys.rotate(
        connection,
        by,
        TENANT,
        present=public(old),
        public=public(new),
        link=link(new, old),
        now=NOW,
    )
    return key.number, revoked


def test_keys_are_numbered_and_the_newest_is_in_force(connection: Connection) -> None:
    assert rotate(connection, SECOND, FIRST) == (2, 0)
    assert rotate(connection, THIRD, SECOND) == (3, 0)
    listed = tenant_keys.listed(connection, ANN, TENANT)
    assert [(k.number, k.public) for k in listed] == [
        (3, public(THIRD)),
        (2, public(SECOND)),
        (1, public(FIRST)),
    ]
    assert connection.scalar(select(tenants.c.recovery_public)) == public(THIRD)


def test_the_same_rotation_again_changes_nothing(connection: Connection) -> None:
    rotate(connection, SECOND, FIRST)
    assert rotate(connection, SECOND, FIRST) == (2, 0)
    assert len(tenant_keys.listed(connection, ANN, TENANT)) == 2


def test_of_two_rotations_at_once_one_is_refused(connection: Connection) -> None:
    rotate(connection, SECOND, FIRST)
    with pytest.raises(SteadError, match="ann made it") as caught:
        rotate(connection, THIRD, FIRST)
    assert caught.value.code is Code.PRECONDITION


def test_a_rotation_makes_tokens_worthless(connection: Connection) -> None:
    token = NewToken(
        TokenId("tk_" + "0" * 26), TENANT, bytes(32), b"bundle", 1, timedelta(days=1), ()
    )
    create(connection, ANN, token, now=NOW)
    assert rotate(connection, SECOND, FIRST) == (2, 1)
    assert connection.scalar(select(tokens.c.revoked_at)) == NOW


def test_a_link_between_other_keys_is_refused(connection: Connection) -> None:
    with pytest.raises(InvalidError):
        tenant_keys.rotate(
            connection,
            ANN,
            TENANT,
            present=public(FIRST),
            public=public(SECOND),
            link=link(THIRD, FIRST),
            now=NOW,
        )


def test_who_may_not_see_the_tenant_learns_nothing(connection: Connection) -> None:
    with pytest.raises(NotFoundError):
        rotate(connection, SECOND, FIRST, by=STRANGER)
    with pytest.raises(NotFoundError):
        tenant_keys.listed(connection, STRANGER, TENANT)
    with pytest.raises(NotFoundError):
        tenant_keys.shares_for(connection, STRANGER, TENANT)
    shared = tenant_keys.Share(TENANT, "eve", b"sealed", b"c", b"s", NOW)
    with pytest.raises(NotFoundError, match="no operator"):
        tenant_keys.share(connection, ANN, shared)
