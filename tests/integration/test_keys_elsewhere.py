"""Operators whose key was made where they sit, in a file or in an ssh-agent; real TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.authority import load_certificate, load_key
from controller.config import OperatorHome
from controller.rpc.refusals import METADATA_KEY
from protocol.codec import encode_unlock, refusal_from_pb, to_ms
from protocol.errors import Code
from protocol.identity import identity_of
from protocol.unlock import METADATA_KEY as UNLOCK
from protocol.unlock import Unlock
from protocol.v1 import job_pb2, operator_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.v1.refusal_pb2 import Refusal
from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.commands import stead
from tests.integration.conftest import Installation
from tests.unit.cli.test_ssh_agent import NEEDS_SSH_AGENT, P256, SshAgent, start_agent


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshAgent]:
    directory = tmp_path / "ssh"
    directory.mkdir()
    running = start_agent(directory)
    running.add(*P256)
    yield running
    running.end()


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


async def refusal(call: Any) -> Code:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    for key, value in caught.value.trailing_metadata() or ():
        if key == METADATA_KEY:
            assert isinstance(value, bytes)
            return refusal_from_pb(Refusal.FromString(value)).code
    raise AssertionError(caught.value)


@NEEDS_SSH_AGENT
async def test_a_key_in_an_ssh_agent_orders_and_what_lies_in_files_only_looks(
    installation: Installation, tmp_path: Path, ssh: SshAgent
) -> None:
    tenant = await installation.add_tenant()
    machine = AgentProcess(tmp_path / "machine")
    await machine.enroll(await token_text(installation, tenant))
    await machine.start()
    await machine.until_status(link="connected")
    home, held = tmp_path / "eve", {"SSH_AUTH_SOCK": ssh.socket}
    request, granted = str(tmp_path / "eve.request"), str(tmp_path / "eve.granted")

    asked = await stead(
        installation,
        *("operator", "request", "eve", "--ssh-agent", "--to", request),
        home=home,
        env=held,
        error=True,
    )
    early = await stead(installation, "machine", "ls", home=home, code=1, error=True)
    assert "stead operator accept" in early
    words = ("operator", "certify", request, "--role", "admin", "--to", granted, "--yes")
    shown = await stead(installation, *words, error=True)
    hash_line = next(line for line in asked.splitlines() if line.startswith("  "))
    assert hash_line in shown
    await stead(installation, "operator", "accept", granted, home=home)
    profile = OperatorHome(home / "operator")
    assert not profile.key.exists()
    rows = json.loads(await stead(installation, "operator", "key", "show", "-o", "json", home=home))
    assert [(row["key"], row["protected_by"]) for row in rows] == [
        ("operator", "ssh-agent"),
        ("connecting", "nothing"),
    ]

    run = ("run", "all", "--", "printf", "done")
    assert await stead(installation, *run, home=home, env=held) == "done"
    await stead(installation, "machine", "tag", "all", "web", home=home, env=held)

    # The laptop is stolen: all of its files, and no agent.
    gone = {"SSH_AUTH_SOCK": ""}
    await stead(installation, "machine", "ls", home=home, env=gone)
    for acting in (run, ("machine", "tag", "all", "db"), ("tenant", "add", "other")):
        said = await stead(installation, *acting, home=home, env=gone, code=1, error=True)
        assert "ssh-agent" in said

    # And whoever has the files does not use our command line.
    key, leaf = load_key(profile.connect_key), load_certificate(profile.connect_certificate)
    channel = installation.channel(key, leaf)
    tag = operator_pb2.TagMachineRequest(machine_id=machine.identity.machine, add=["evil"])
    machines = MachineServiceStub(channel)
    assert await refusal(machines.TagMachine(tag)) is Code.DENIED
    until = to_ms(leaf.not_valid_after_utc)
    own = load_certificate(profile.certificate)
    for unlock in (
        Unlock(der_of(own), until, b""),
        Unlock(der_of(own), until, key.sign(b"x", ec.ECDSA(SHA256()))),
        Unlock(der_of(leaf), until, key.sign(b"x", ec.ECDSA(SHA256()))),
    ):
        metadata = [(UNLOCK, encode_unlock(unlock))]
        refused = await refusal(machines.TagMachine(tag, metadata=metadata))
        assert refused in {Code.BAD_SIGNATURE, Code.UNAUTHENTICATED}
    forged = installation.signed_order(key, leaf, tenant, machine.identity.machine)
    submitted = JobServiceStub(channel).SubmitOrder(job_pb2.SubmitOrderRequest(envelope=forged))
    assert await refusal(submitted) is Code.BAD_SIGNATURE

    # Renewal needs the root and no agent.
    root = str(installation.made.root.path)
    await stead(installation, "operator", "renew", "eve", "--root", root, home=home, env=gone)
    assert load_certificate(profile.connect_certificate) != leaf
    assert await stead(installation, *run, home=home, env=held) == "done"
    rows = json.loads(await stead(installation, "operator", "ls", "-o", "json"))
    (eve,) = [row for row in rows if row["name"] == "eve"]
    newest = load_certificate(profile.certificate).not_valid_after_utc
    assert eve["ends_at"] == newest.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # Revoked by name, and with it what only connects.
    await stead(installation, "operator", "revoke", "eve", "--yes")
    await stead(installation, "machine", "ls", home=home, env=held, code=4)
    await machine.stop()


async def test_a_key_made_in_a_file_stays_there_and_an_exchanged_request_is_seen(
    installation: Installation, tmp_path: Path
) -> None:
    await installation.add_tenant()
    home = tmp_path / "bob"
    word = tmp_path / "word"
    word.write_text("correct horse battery\n")
    word.chmod(0o600)
    own = {"STEAD_NEW_PASSPHRASE_FILE": str(word), "STEAD_PASSPHRASE_FILE": str(word)}
    request, granted = tmp_path / "bob.request", tmp_path / "bob.granted"
    words = ("operator", "request", "bob", "--passphrase", "--to", str(request))
    await stead(installation, *words, home=home, env=own)
    assert b"ENCRYPTED" in (home / "operator" / "operator.key").read_bytes()
    certify = ("operator", "certify", str(request), "--role", "helpdesk", "--yes", "--to")

    good = request.read_bytes()
    request.write_bytes(good.replace(b'"bob"', b'"ann"'))
    said = await stead(installation, *certify, str(granted), code=4, error=True)
    assert "not signed by the keys" in said
    request.write_bytes(good)
    await stead(installation, *certify, str(granted))
    assert "already" in await stead(installation, *certify, str(tmp_path / "x"), code=1, error=True)
    text = granted.read_text()
    granted.write_text(text.replace('"bob"', '"ann"'))
    await stead(installation, "operator", "accept", str(granted), home=home, env=own, code=2)
    granted.write_text(text)
    await stead(installation, "operator", "accept", str(granted), home=home, env=own)
    await stead(installation, "machine", "ls", home=home, env=own)
    await stead(installation, "tenant", "add", "other", home=home, env=own, code=4)
    await stead(installation, "operator", "accept", str(granted), home=home, env=own, code=1)

    # A year later: the same files, for the same key and for no other.
    before = load_certificate(OperatorHome(home / "operator").certificate)
    again, answer = str(tmp_path / "again.request"), str(tmp_path / "again.granted")
    renew = ("operator", "request", "--renew", "--to", again)
    await stead(installation, *renew, home=home, env=own)
    once_more = ("operator", "certify", again, "--yes", "--to", answer)
    await stead(installation, *once_more, "--role", "admin", "--renew", code=2)
    assert "already" in await stead(installation, *once_more, "--role", "admin", code=1, error=True)
    await stead(installation, *once_more, "--renew")
    await stead(installation, "operator", "accept", answer, home=home, env=own)
    after = load_certificate(OperatorHome(home / "operator").certificate)
    assert after.public_key() == before.public_key()
    assert identity_of(after) == identity_of(before)
    assert after.serial_number != before.serial_number
    await stead(installation, "machine", "ls", home=home, env=own)
    stolen = str(tmp_path / "stolen.request")
    other = tmp_path / "other"
    await stead(installation, "operator", "request", "bob", "--to", stolen, home=other)
    theft = ("operator", "certify", stolen, "--renew", "--yes", "--to", str(tmp_path / "y"))
    said = await stead(installation, *theft, code=4, error=True)
    assert "another key than bob's" in said
