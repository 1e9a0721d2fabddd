"""Become a machine of its own, when the controller says that another one is this one.

A copy of a disk or of a virtual machine wakes up with the key of its model. It makes a new
key and asks, by the old one, for an identity that belongs to it. What it was told to do as
the other machine ends: its journal, its backup set, its standing orders.
"""

from __future__ import annotations

from datetime import datetime

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.host.files import make_private_directory, sync_directory, write_atomically
from agent.host.hostname import hostname
from agent.link.enroll import check_chain, finish, new_key
from agent.link.identity import Credentials
from agent.link.ratchet import load_holder
from agent.link.refusal import error_of_call
from agent.version import VERSION
from protocol.codec import encode_holder, to_ms
from protocol.errors import Code
from protocol.identity import rekey_bytes
from protocol.tls import chain_pem, channel_options, client_credentials, explain_failure
from protocol.v1 import enrollment_pb2
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub

ANSWER_S = 30.0


def rekey(credentials: Credentials, home: AgentHome, *, now: datetime, journal: bytes) -> str:
    """Put a new identity in the place of a shared one; the new machine's id.

    `journal` is the content of an empty one. Asking again after a lost answer, with the key
    of the attempt before, gives the same machine. Raises what the controller refuses with,
    and UNAVAILABLE with the reason; then nothing has changed.
    """
    make_private_directory(home.enrolling)
    sync_directory(home.path)
    new = AgentHome(home.enrolling)
    key = new_key(new)
    answer = _ask(credentials, home, key, now)
    try:
        chain = [x509.load_der_x509_certificate(der) for der in answer.certificate_chain]
    except ValueError:
        chain = []
    expected = (credentials.identity.tenant, answer.machine_id)
    check_chain(chain, key, credentials.root, now, expected=expected)
    write_atomically(new.chain, chain_pem(chain))
    write_atomically(new.root, home.root.read_bytes())
    write_atomically(new.sealing_key, X25519PrivateKey.generate().private_bytes_raw())
    write_atomically(new.vault_secret, home.vault_secret.read_bytes())
    write_atomically(new.journal, journal)
    write_atomically(new.settings, home.settings.read_bytes())
    finish(home)
    return answer.machine_id


def _ask(
    credentials: Credentials, home: AgentHome, key: ec.EllipticCurvePrivateKey, now: datetime
) -> enrollment_pb2.RekeyResponse:
    certificate, at = credentials.leaf.public_bytes(Encoding.DER), to_ms(now)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wish = request.sign(key, SHA256()).public_bytes(Encoding.DER)
    signed = rekey_bytes(certificate, wish, at)
    message = enrollment_pb2.RekeyRequest(
        certificate=certificate,
        requested_at_ms=at,
        signature=credentials.key.sign(signed, ec.ECDSA(SHA256())),
        signing_request=wish,
        holder=encode_holder(load_holder(home)),
        hostname=hostname(),
        agent_version=VERSION,
    )
    address = credentials.settings.enrollment_address
    proxy = credentials.settings.proxy_for(address)
    with grpc.secure_channel(
        address, client_credentials(credentials.root), options=channel_options(proxy)
    ) as channel:
        try:
            return EnrollmentServiceStub(channel).Rekey(message, timeout=ANSWER_S)
        except grpc.RpcError as error:
            failure = error_of_call(error)
    if failure.code is Code.UNAVAILABLE:
        failure = explain_failure(address, credentials.root, now=now, proxy=proxy)
    raise failure
