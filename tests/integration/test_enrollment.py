"""From a token to a certificate and to newer ones, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import func, select, update

from controller import clock
from controller.authority.admission import MOST_AN_HOUR
from controller.authority.certificates import Issuer, certify_machine
from controller.authority.keys import new_key, new_serial
from controller.db.schema import machines, tokens
from controller.rpc.server import MAX_ENROLLMENT_BYTES
from protocol.codec import to_ms
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, identity_of, key_hash, renewal_bytes
from protocol.ids import TokenId, is_of_key
from protocol.tls import find_root, shown_certificate
from protocol.token import Token, TokenError, decode_token, encode_token, open_bundle
from protocol.v1 import operator_pb2
from protocol.v1.enrollment_pb2 import EnrollRequest, RenewRequest, RenewResponse
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from protocol.v1.operator_pb2_grpc import MachineServiceStub, TokenServiceStub
from tests.integration.conftest import SECRET, Enrolled, Installation, install, signing_request
from tests.integration.refusal import refused


@pytest.fixture
async def old_installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """One whose authority is older than the certificates that it is shown."""
    running = await install(tmp_path / "home", age=timedelta(days=500))
    yield running
    await running.close()


@pytest.fixture
async def token(installation: Installation) -> Token:
    return await installation.add_token(await installation.add_tenant(), tags=("web", "pilot"))


def changed(token: Token, *, name: str | None = None, secret: bytes | None = None) -> Token:
    return Token(
        TokenId(name or token.id), secret or token.secret, token.opening, token.pin, token.address
    )


async def set_token(installation: Installation, token: Token, **values: object) -> None:
    await installation.controller.parts.db.write(
        lambda c: c.execute(update(tokens).where(tokens.c.id == token.id).values(**values)).close()
    )


async def renew(
    installation: Installation,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    at: datetime | None = None,
    signature: bytes | None = None,
) -> RenewResponse:
    der = certificate.public_bytes(Encoding.DER)
    at_ms = to_ms(at or clock.now())
    signed = key.sign(renewal_bytes(der, at_ms), ec.ECDSA(SHA256()))
    return await EnrollmentServiceStub(installation.enrollment_channel()).Renew(
        RenewRequest(
            certificate=der,
            requested_at_ms=at_ms,
            signature=signed if signature is None else signature,
        )
    )


def certificate_of(
    installation: Installation, machine: Enrolled, *, ended: timedelta
) -> x509.Certificate:
    """A certificate of the machine that ended so long ago."""
    return certify_machine(
        installation.controller.parts.authority.issuing,
        machine.key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now() - ended - timedelta(days=1),
        lifetime=timedelta(days=1),
    )


async def test_a_token_lets_one_machine_in(installation: Installation, token: Token) -> None:
    machine = await installation.enroll(token, "Web-01.example.com")
    assert identity_of(machine.chain[0]) == MachineIdentity(machine.tenant, machine.id)
    assert machine.name == "web-01"
    assert machine.answer.link_address == installation.link_address
    sealed = machine.answer.sealed_bundle
    assert open_bundle(token.opening, token.id, machine.tenant, sealed) == SECRET
    assert is_of_key(machine.id, key_hash(machine.key.public_key()))
    listed = await MachineServiceStub(installation.admin()).ListMachines(
        operator_pb2.ListMachinesRequest()
    )
    assert [(m.name, m.state, list(m.tags)) for m in listed.machines] == [
        ("web-01", "active", ["pilot", "web"])
    ]
    events = [entry.event for entry in await installation.audit(machine.tenant)]
    assert events == ["tenant_added", "token_created", "machine_enrolled"]


async def test_the_line_that_was_handed_over_is_all_that_a_machine_needs(
    installation: Installation, token: Token
) -> None:
    given = decode_token(encode_token(token))
    assert find_root(given.address, given.pin) == installation.root
    assert (await installation.enroll(given)).tenant


async def test_a_token_for_another_root_is_noticed_before_anything_is_sent(
    installation: Installation, token: Token
) -> None:
    with pytest.raises(SteadError) as caught:
        find_root(token.address, bytes(32))
    assert caught.value.code is Code.WRONG_PIN


async def test_enrolling_again_with_the_same_key_answers_for_the_same_machine(
    installation: Installation, token: Token
) -> None:
    key = new_key()
    first = await installation.enroll(token, key=key)
    # The first answer was lost, and the token has ended meanwhile.
    await set_token(installation, token, expires_at=clock.now() - timedelta(days=1))
    again = await installation.enroll(token, "renamed", key=key)
    assert (again.id, again.name) == (first.id, first.name)
    assert again.answer.sealed_bundle == first.answer.sealed_bundle
    assert again.chain[0].serial_number != first.chain[0].serial_number
    db = installation.controller.parts.db
    assert await db.read(lambda c: c.scalar(select(func.count()).select_from(machines))) == 1


async def test_a_revoked_machine_does_not_come_back_with_its_token(
    installation: Installation, token: Token
) -> None:
    machine = await installation.enroll(token)
    await MachineServiceStub(installation.admin()).RevokeMachine(
        operator_pb2.RevokeMachineRequest(machine_id=machine.id)
    )
    refusal = await refused(installation.enroll(token, key=machine.key))
    assert refusal.code is Code.REVOKED
    refusal = await refused(renew(installation, machine.chain[0], machine.key))
    assert refusal.code is Code.REVOKED


async def test_the_same_host_name_gets_another_name(installation: Installation) -> None:
    tenant = await installation.add_tenant()
    token = await installation.add_token(tenant, uses=3)
    names = [(await installation.enroll(token, "web")).name for _ in range(3)]
    assert names == ["web", "web-2", "web-3"]
    other = await installation.new_machine(await installation.add_tenant("other"), "web")
    assert other.name == "web"


async def test_a_token_of_one_use_is_used_once_however_many_try(
    installation: Installation, token: Token
) -> None:
    tries = await asyncio.gather(
        *(installation.enroll(token) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, Enrolled) for result in tries) == 1
    refusal = await refused(installation.enroll(token))
    assert refusal.code is Code.TOKEN_USED


async def test_a_wrong_secret_and_an_unknown_token_look_alike(
    installation: Installation, token: Token
) -> None:
    wrong = await refused(installation.enroll(changed(token, secret=bytes(16))))
    unknown = await refused(installation.enroll(changed(token, name="tk_" + "0" * 26)))
    cut = await refused(installation.enroll(changed(token, secret=token.secret[:-1])))
    assert wrong.code is unknown.code is cut.code is Code.TOKEN_INVALID
    assert str(wrong) == str(unknown) == str(cut)


async def test_an_expired_token_is_told_from_a_wrong_one(
    installation: Installation, token: Token
) -> None:
    await set_token(installation, token, expires_at=clock.now() - timedelta(seconds=1))
    refusal = await refused(installation.enroll(token))
    assert refusal.code is Code.TOKEN_EXPIRED
    assert "stead token new" in str(refusal)


async def test_a_revoked_token_is_worthless(installation: Installation, token: Token) -> None:
    await TokenServiceStub(installation.admin()).RevokeToken(
        operator_pb2.RevokeTokenRequest(token_id=token.id)
    )
    refusal = await refused(installation.enroll(token))
    assert refusal.code is Code.TOKEN_INVALID
    assert "revoked" in str(refusal)


def test_a_truncated_token_is_told_from_a_wrong_one() -> None:
    token = Token(TokenId("tk_" + "0" * 26), bytes(16), bytes(16), bytes(32), "host:7444")
    line = encode_token(token)
    assert decode_token(line + "\n") == token
    for length in range(len(line)):
        with pytest.raises(TokenError):
            decode_token(line[:length])


BAD_REQUESTS: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"\x30\x80garbage",
    "rsa": lambda: signing_request(rsa.generate_private_key(65537, 2048)),
    "p384": lambda: signing_request(ec.generate_private_key(ec.SECP384R1())),
    "unsigned": lambda: signing_request(new_key())[:-4] + bytes(4),
    "empty": lambda: b"",
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
async def test_a_key_that_is_not_ours_to_certify_spends_no_token(
    installation: Installation, token: Token, kind: str
) -> None:
    request = BAD_REQUESTS[kind]()
    stub = EnrollmentServiceStub(installation.enrollment_channel())
    refusal = await refused(
        stub.Enroll(
            EnrollRequest(token_id=token.id, token_secret=token.secret, signing_request=request)
        )
    )
    assert refusal.code is Code.INVALID
    assert (await installation.enroll(token)).name == "web-01"


async def test_a_key_that_a_machine_has_is_not_given_to_another(
    installation: Installation, token: Token
) -> None:
    machine = await installation.enroll(token)
    other = await installation.add_token(await installation.add_tenant("other"))
    refusal = await refused(installation.enroll(other, key=machine.key))
    assert refusal.code is Code.ALREADY_EXISTS


async def test_who_shows_no_certificate_may_send_little(installation: Installation) -> None:
    stub = EnrollmentServiceStub(installation.enrollment_channel())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Enroll(EnrollRequest(signing_request=bytes(MAX_ENROLLMENT_BYTES + 1)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_guessing_is_written_down_without_growing_by_each_guess(
    installation: Installation, token: Token
) -> None:
    guess = changed(token, secret=bytes(16))
    for _ in range(20):
        await refused(installation.enroll(guess))
    tenant = (await installation.enroll(token)).tenant
    assert [e.event for e in await installation.audit(tenant)].count("enrollments_refused") == 1
    await installation.restart()
    found = [e.body for e in await installation.audit(tenant) if e.event == "enrollments_refused"]
    assert found == ['{"counts":{"token_invalid":1}}', '{"counts":{"token_invalid":19}}']


@pytest.mark.parametrize("days", [0, 1, 7, 399])
async def test_a_certificate_is_renewed_though_it_ended(
    old_installation: Installation, days: int
) -> None:
    installation = old_installation
    machine = await installation.new_machine(await installation.add_tenant())
    old = machine.chain[0]
    if days:
        old = certificate_of(installation, machine, ended=timedelta(days=days))
    answer = await renew(installation, old, machine.key)
    newer = [x509.load_der_x509_certificate(der) for der in answer.certificate_chain]
    assert identity_of(newer[0]) == identity_of(old)
    assert newer[0].not_valid_after_utc > clock.now() + timedelta(days=13)
    assert newer[0].public_key() == machine.key.public_key()
    events = [entry.event for entry in await installation.audit(machine.tenant)]
    assert events[-1] == "certificate_renewed"


async def test_a_certificate_that_ended_too_long_ago_is_not_renewed(
    old_installation: Installation,
) -> None:
    installation = old_installation
    machine = await installation.new_machine(await installation.add_tenant())
    old = certificate_of(installation, machine, ended=timedelta(days=401))
    refusal = await refused(renew(installation, old, machine.key))
    assert refusal.code is Code.EXPIRED
    assert "more than 400" in str(refusal)


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
async def test_a_clock_that_is_wrong_is_named_with_the_right_one(
    installation: Installation, token: Token, hours: int
) -> None:
    machine = await installation.enroll(token)
    theirs = clock.now() + timedelta(hours=hours)
    refusal = await refused(renew(installation, machine.chain[0], machine.key, at=theirs))
    assert refusal.code is Code.CLOCK_SKEW
    assert f"{theirs:%Y-%m-%d %H:%M:%S}Z" in str(refusal)
    assert f"{datetime.now(UTC):%Y-%m-%d}" in str(refusal)


async def test_who_asks_on_and_on_fills_no_database(
    installation: Installation, token: Token
) -> None:
    machine = await installation.enroll(token)
    for _ in range(MOST_AN_HOUR - 1):
        await renew(installation, machine.chain[0], machine.key)
    for again in (
        renew(installation, machine.chain[0], machine.key),
        installation.enroll(token, key=machine.key),
    ):
        assert (await refused(again)).code is Code.LIMIT
    # It is the machine's own affair.
    await installation.new_machine(machine.tenant, "db-01")


async def test_nobody_renews_without_the_key(installation: Installation, token: Token) -> None:
    machine = await installation.enroll(token)
    for key, signature in ((new_key(), None), (machine.key, b""), (machine.key, bytes(72))):
        refusal = await refused(renew(installation, machine.chain[0], key, signature=signature))
        assert refusal.code is Code.BAD_SIGNATURE


async def test_an_operator_is_not_renewed_here(installation: Installation) -> None:
    refusal = await refused(
        renew(installation, installation.admin_certificate, installation.admin_key)
    )
    assert refusal.code is Code.UNAUTHENTICATED


async def test_a_certificate_for_another_key_makes_nobody_the_machine(
    installation: Installation, token: Token
) -> None:
    """The authority itself signed it, as one whose key was stolen would."""
    machine, key = await installation.enroll(token), new_key()
    leaf = certify_machine(
        installation.controller.parts.authority.issuing,
        key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now(),
    )
    refusal = await refused(renew(installation, leaf, key))
    assert refusal.code is Code.UNAUTHENTICATED
    assert "not for this machine's present key" in str(refusal)


async def test_a_certificate_that_another_authority_made_is_not_renewed(
    installation: Installation, token: Token
) -> None:
    machine = await installation.enroll(token)
    issuing = installation.controller.parts.authority.issuing.certificate
    forged = certify_machine(
        Issuer(issuing, new_key()),
        machine.key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now(),
    )
    refusal = await refused(renew(installation, forged, machine.key))
    assert refusal.code is Code.UNAUTHENTICATED


async def test_a_machine_that_the_database_does_not_know_is_told_to_enroll(
    installation: Installation, token: Token
) -> None:
    machine = await installation.enroll(token)
    other = MachineIdentity(machine.tenant, type(machine.id)("mc_" + "0" * 26))
    leaf = certify_machine(
        installation.controller.parts.authority.issuing,
        machine.key.public_key(),
        other,
        serial=new_serial(),
        now=clock.now(),
    )
    refusal = await refused(renew(installation, leaf, machine.key))
    assert refusal.code is Code.UNKNOWN_MACHINE


async def test_the_controllers_certificate_is_shown_anew_before_it_ends(
    installation: Installation, token: Token
) -> None:
    before = shown_certificate(installation.enrollment_address)
    installation.serving.current(clock.now() + timedelta(days=25))
    after = shown_certificate(installation.enrollment_address)
    assert after.serial_number != before.serial_number
    assert shown_certificate(installation.enrollment_address) == after
    assert shown_certificate(installation.link_address) == after
    assert (await installation.enroll(token)).tenant
