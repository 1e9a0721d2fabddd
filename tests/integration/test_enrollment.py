"""Enrollment over real TLS."""

from __future__ import annotations

from protocol.token import open_bundle
from tests.integration.conftest import SECRET, Installation


async def test_a_token_lets_one_machine_in(installation: Installation) -> None:
    tenant = await installation.add_tenant()
    token = await installation.add_token(tenant)
    machine = await installation.enroll(token)
    assert machine.tenant == tenant
    assert machine.name == "web-01"
    assert open_bundle(token.opening, token.id, machine.answer.sealed_bundle) == SECRET
