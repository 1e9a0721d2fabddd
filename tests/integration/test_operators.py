"""Tenants, tokens, operators and the audit log, as operators use them over real TLS."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.audit.chain import Entry, Head, Verified, verify
from controller.db.micros import from_micros
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import TenantId
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import (
    AuditServiceStub,
    OperatorServiceStub,
    TenantServiceStub,
    TokenServiceStub,
)
from tests.integration.conftest import Installation
from tests.integration.refusal import refused


def new_tenant(**edits: Any) -> pb.AddTenantRequest:
    values = {"tenant_id": clock.new_id("tn"), "name": "acme", "recovery_key": bytes(32), **edits}
    return pb.AddTenantRequest(**values)


async def test_a_tenant_is_added_once_and_asking_again_is_no_harm(
    installation: Installation,
) -> None:
    stub = TenantServiceStub(installation.admin())
    request = new_tenant()
    first = await stub.AddTenant(request)
    assert await stub.AddTenant(request) == first
    assert (await refused(stub.AddTenant(new_tenant()))).code is Code.ALREADY_EXISTS
    other_key = new_tenant(tenant_id=request.tenant_id, recovery_key=b"x" * 32)
    assert (await refused(stub.AddTenant(other_key))).code is Code.ALREADY_EXISTS
    assert [t.name for t in (await stub.ListTenants(pb.ListTenantsRequest())).tenants] == ["acme"]
    assert [e.event for e in await installation.audit(request.tenant_id)] == ["tenant_added"]


@pytest.mark.parametrize(
    "edit",
    [
        {"tenant_id": ""},
        {"tenant_id": "tn_x"},
        {"name": ""},
        {"name": "A B"},
        {"recovery_key": b""},
        {"recovery_key": bytes(33)},
    ],
)
async def test_a_tenant_that_cannot_be_is_refused(
    installation: Installation, edit: dict[str, Any]
) -> None:
    stub = TenantServiceStub(installation.admin())
    assert (await refused(stub.AddTenant(new_tenant(**edit)))).code is Code.INVALID


def new_token(tenant: str, **edits: Any) -> pb.CreateTokenRequest:
    values = {
        "token_id": clock.new_id("tk"),
        "tenant_id": tenant,
        "secret_hash": bytes(32),
        "sealed_bundle": b"sealed",
        "uses": 1,
        "ttl_s": 60,
        **edits,
    }
    return pb.CreateTokenRequest(**values)


@pytest.mark.parametrize(
    "edit",
    [
        {"token_id": "tn_" + "0" * 26},
        {"secret_hash": bytes(31)},
        {"sealed_bundle": bytes(4097)},
        {"uses": 0},
        {"uses": 10_001},
        {"ttl_s": 0},
        {"ttl_s": 2**32 - 1},
        {"tags": ["A B"]},
        {"tags": [f"t{n}" for n in range(33)]},
    ],
)
async def test_a_token_that_cannot_be_is_refused(
    installation: Installation, edit: dict[str, Any]
) -> None:
    tenant = await installation.add_tenant()
    stub = TokenServiceStub(installation.admin())
    assert (await refused(stub.CreateToken(new_token(tenant, **edit)))).code is Code.INVALID


async def test_tokens_are_listed_without_secrets_newest_first(installation: Installation) -> None:
    tenant = await installation.add_tenant()
    old, new = await installation.add_token(tenant), await installation.add_token(tenant, uses=3)
    await installation.enroll(new)
    stub = TokenServiceStub(installation.admin())
    await stub.RevokeToken(pb.RevokeTokenRequest(token_id=old.id))
    listed = (await stub.ListTokens(pb.ListTokensRequest(tenant_id=tenant))).tokens
    assert {
        (t.token_id, t.uses, t.uses_left, t.revoked_at_ms > 0, t.created_by) for t in listed
    } == {
        (new.id, 3, 2, False, "admin"),
        (old.id, 1, 1, True, "admin"),
    }
    same = new_token(tenant, token_id=old.id)
    assert (await refused(stub.CreateToken(same))).code is Code.ALREADY_EXISTS
    assert [e.event for e in await installation.audit(tenant)][1:] == [
        "token_created",
        "token_created",
        "machine_enrolled",
        "token_revoked",
    ]


async def test_the_audit_log_can_be_checked_by_whoever_reads_it(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    for _ in range(5):
        await installation.add_token(tenant)
    stub = AuditServiceStub(installation.admin())
    found: list[Entry] = []
    while True:
        page = await stub.ListAudit(
            pb.ListAuditRequest(tenant_id=tenant, after=len(found), limit=2)
        )
        found += [
            Entry(
                tenant,
                e.sequence,
                from_micros(e.at_us),
                e.actor,
                e.event,
                e.body,
                e.previous,
                e.hash,
            )
            for e in page.entries
        ]
        if not page.entries:
            break
    seen = Head(page.head_sequence, page.head_hash)
    assert verify(found, tenant, expected=seen) == Verified(seen)
    assert [e.actor for e in found] == ["operator/admin"] * 6


async def test_what_belongs_to_the_installation_is_not_for_those_who_see_a_part(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    channel = installation.channel(*installation.operator("ann", Role.ADMIN, frozenset({tenant})))
    whole = AuditServiceStub(installation.admin())
    assert (await whole.ListAudit(pb.ListAuditRequest())).entries
    part = AuditServiceStub(channel)
    assert (await refused(part.ListAudit(pb.ListAuditRequest()))).code is Code.DENIED
    assert (await part.ListAudit(pb.ListAuditRequest(tenant_id=tenant))).entries
    operators = OperatorServiceStub(channel)
    _, certificate = installation.operator("eve", Role.ADMIN)
    request = pb.AddOperatorRequest(certificate=certificate.public_bytes(Encoding.DER))
    assert (await refused(operators.AddOperator(request))).code is Code.DENIED
    revoke = pb.RevokeOperatorRequest(name="admin")
    assert (await refused(operators.RevokeOperator(revoke))).code is Code.DENIED
    add = TenantServiceStub(channel).AddTenant(new_tenant(name="other"))
    assert (await refused(add)).code is Code.DENIED


async def test_operators_see_those_who_act_in_their_tenants_and_no_others(
    installation: Installation,
) -> None:
    one, two = await installation.add_tenant("one"), await installation.add_tenant("two")
    admin = OperatorServiceStub(installation.admin())

    async def add(name: str, *tenants: TenantId) -> Any:
        made = installation.operator(name, Role.ADMIN, frozenset(tenants) or None)
        await admin.AddOperator(
            pb.AddOperatorRequest(certificate=made[1].public_bytes(Encoding.DER))
        )
        return made

    ann = await add("ann", one)
    await add("bob", two)
    await add("cid", one, two)
    everybody = await admin.ListOperators(pb.ListOperatorsRequest())
    assert [o.name for o in everybody.operators] == ["admin", "ann", "bob", "cid"]
    assert [sorted(o.tenant_ids) for o in everybody.operators][1:] == [
        [one],
        [two],
        sorted([one, two]),
    ]
    hers = OperatorServiceStub(installation.channel(*ann))
    listed = await hers.ListOperators(pb.ListOperatorsRequest())
    assert [o.name for o in listed.operators] == ["admin", "ann"]
    visible = await TenantServiceStub(installation.channel(*ann)).ListTenants(
        pb.ListTenantsRequest()
    )
    assert [t.name for t in visible.tenants] == ["one"]


async def test_a_newer_certificate_takes_the_place_of_the_older(
    installation: Installation,
) -> None:
    admin = OperatorServiceStub(installation.admin())
    ends = []
    for _ in range(2):
        _, certificate = installation.operator("ann", Role.HELPDESK)
        request = pb.AddOperatorRequest(certificate=certificate.public_bytes(Encoding.DER))
        await admin.AddOperator(request)
        ends.append((await admin.AddOperator(request)).operator.not_after_ms)
    listed = (await admin.ListOperators(pb.ListOperatorsRequest())).operators
    assert [(o.name, o.role) for o in listed] == [("admin", "admin"), ("ann", "helpdesk")]
    assert listed[1].not_after_ms == ends[-1]
