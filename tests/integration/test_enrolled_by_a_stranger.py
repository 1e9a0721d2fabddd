"""A controller in a stranger's hands enrolls a machine: as nobody else, and for no other tenant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.admission import read_signing_request
from protocol.identity import MachineIdentity, key_hash, pin_of
from protocol.ids import MachineId, TenantId, TokenId, machine_of_key
from protocol.token import Token, encode_token, seal_bundle
from protocol.v1 import enrollment_pb2
from protocol.vault.keys import encode_vault_secret
from tests.fakes.link_server import TENANT_KEY, LinkServer, Realm, certify_key, fresh
from tests.integration.agent_process import AgentProcess


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("", ""),
        ("machine", "not of the key made here"),
        ("tenant", "named another tenant"),
    ],
)
async def test_a_token_makes_a_machine_of_its_tenant_with_a_name_of_its_own(
    tmp_path: Path, lie: str, words: str
) -> None:
    realm, agent = Realm(), AgentProcess(tmp_path / "machine")
    secret, opening, name = os.urandom(16), os.urandom(16), TokenId(fresh("tk"))
    bundle = seal_bundle(opening, name, realm.tenant, encode_vault_secret(TENANT_KEY.secret))
    tenant = TenantId(fresh("tn")) if lie == "tenant" else realm.tenant

    def enroll(request: enrollment_pb2.EnrollRequest) -> enrollment_pb2.EnrollResponse:
        key = read_signing_request(request.signing_request)
        machine = machine_of_key(key_hash(key), at_ms=0)
        if lie == "machine":
            machine = MachineId(fresh("mc"))
        chain = [certify_key(realm, MachineIdentity(tenant, machine), key)]
        return enrollment_pb2.EnrollResponse(
            machine_id=machine,
            tenant_id=tenant,
            certificate_chain=[
                one.public_bytes(Encoding.DER) for one in (*chain, realm.issuing.certificate)
            ],
            sealed_bundle=bundle,
            link_address=server.address,
        )

    async with LinkServer(realm) as server:
        server.enroll = enroll
        pin = pin_of(realm.root.certificate)
        token = encode_token(Token(name, secret, opening, pin, server.open_address))
        code, _, err = await agent.command("enroll", "--token", "-", stdin=token)
    assert (code == 0) == (not lie), err
    assert words in " ".join(err.split())
    assert agent.home.key.exists() == (not lie)
