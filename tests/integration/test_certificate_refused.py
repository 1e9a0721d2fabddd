"""A certificate that a controller in a stranger's hands made so that no TLS takes it."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.link.identity import load_identity
from protocol.identity import MachineIdentity, read_certificate
from protocol.tls import chain_pem
from protocol.v1 import enrollment_pb2
from tests.fakes.link_server import DAY, LinkServer, Realm, certify_key
from tests.integration.agent_process import AgentProcess, idle_agent

__all__ = ["idle_agent"]


def for_servers_alone(
    realm: Realm, machine: MachineIdentity, key: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    """Right in all that an agent looks at, and good for years; no server takes it of a client."""
    good = certify_key(realm, machine, key, life=3000 * DAY)
    usage = x509.Extension(
        x509.ExtendedKeyUsage.oid, True, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    )
    builder = x509.CertificateBuilder(
        good.issuer,
        good.subject,
        key,
        good.serial_number,
        good.not_valid_before_utc,
        good.not_valid_after_utc,
        [*good.extensions, usage],
    )
    return builder.sign(realm.issuing.key, SHA256())


async def test_a_machine_whose_certificate_is_refused_at_the_door_asks_for_another(
    agent: AgentProcess,
) -> None:
    realm = Realm()
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address, server.open_address)
        key = load_pem_private_key(agent.home.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        bad = for_servers_alone(realm, machine, key.public_key())
        agent.home.chain.write_bytes(chain_pem([bad, realm.issuing.certificate]))
        assert load_identity(agent.home).identity == machine
        asked = []

        def renew(request: enrollment_pb2.RenewRequest) -> enrollment_pb2.RenewResponse:
            asked.append(request)
            shown = read_certificate(request.certificate).public_key()
            assert isinstance(shown, ec.EllipticCurvePublicKey)
            chain = [certify_key(realm, machine, shown), realm.issuing.certificate]
            return enrollment_pb2.RenewResponse(
                certificate_chain=[one.public_bytes(Encoding.DER) for one in chain]
            )

        server.renew = renew
        await agent.start()
        await server.visit()
        assert (await agent.until_status(link="connected"))["machine"] == machine.machine
        assert len(asked) == 1
        assert load_identity(agent.home).leaf != bad
