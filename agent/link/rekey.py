"""Become a machine of its own, when the controller says that another one is this one.

A copy of a disk or of a virtual machine wakes up with the key of its model. It makes a new
key and asks, by the old one, for an identity that belongs to it. What it was told to do as
the other machine ends, and is kept with the old identity: see `agent.link.former`.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.host.files import make_private_directory, sync_directory, write_atomically
from agent.host.hostname import hostname
from agent.link.asking import ANSWER_S, ask, believed_chain, check_named, signing_request
from agent.link.enroll import finish, new_key
from agent.link.former import check_room, keep_former
from agent.link.identity import Credentials
from agent.link.ratchet import load_holder
from agent.version import VERSION
from protocol.codec import encode_holder, to_ms
from protocol.identity import rekey_bytes
from protocol.tls import chain_pem
from protocol.v1 import enrollment_pb2


def rekey(credentials: Credentials, home: AgentHome, *, now: datetime, journal: bytes) -> str:
    """Put a new identity in the place of a shared one, which is kept; the new machine's id.

    `journal` is the content of an empty one. Asking again after a lost answer, with the key
    of the attempt before, gives the same machine. Raises what the controller refuses with,
    UNAVAILABLE with the reason, and PRECONDITION when this happened too often; then nothing
    has changed.
    """
    check_room(home)
    make_private_directory(home.enrolling)
    sync_directory(home.path)
    new = AgentHome(home.enrolling)
    key = new_key(new)
    answer = _ask(credentials, home, key, now)
    check_named(answer.machine_id, key)
    expected = (credentials.identity.tenant, answer.machine_id)
    chain = believed_chain(
        answer.certificate_chain,
        key,
        credentials.root,
        now,
        expected=expected,
        distrusted=credentials.distrusted,
    )
    write_atomically(new.chain, chain_pem(chain))
    write_atomically(new.root, home.root.read_bytes())
    write_atomically(new.sealing_key, X25519PrivateKey.generate().private_bytes_raw())
    write_atomically(new.vault_secret, home.vault_secret.read_bytes())
    write_atomically(new.journal, journal)
    # Before the set is whole: from then on it is moved into place, whatever happens.
    keep_former(home, credentials.identity.machine)
    write_atomically(new.settings, home.settings.read_bytes())
    finish(home)
    return answer.machine_id


def _ask(
    credentials: Credentials, home: AgentHome, key: ec.EllipticCurvePrivateKey, now: datetime
) -> enrollment_pb2.RekeyResponse:
    certificate, at = credentials.leaf.public_bytes(Encoding.DER), to_ms(now)
    wish = signing_request(key)
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
    return ask(
        address,
        credentials.root,
        lambda stub: stub.Rekey(message, timeout=ANSWER_S),
        distrusted=credentials.distrusted,
        proxy=credentials.settings.proxy_for(address),
        now=now,
    )
