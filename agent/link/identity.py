"""Who this machine is: its certificate, its key, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.config import AgentHome, Settings
from agent.host import clock
from agent.host.files import read_if_there
from agent.link.ratchet import load_token
from protocol.attached import Attached, Metadata
from protocol.codec import encode_holder, read_revocations
from protocol.errors import Code, SteadError
from protocol.holder import METADATA_KEY, Holder
from protocol.identity import MachineIdentity, identity_of, key_hash, public_key_of
from protocol.tls import channel_options, client_credentials, find_anchor
from protocol.vault.keys import VaultSecret, decode_vault_secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """A machine's identity with what proves it. `chain` is leaf first."""

    settings: Settings
    root: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey
    identity: MachineIdentity
    distrusted: frozenset[bytes] = frozenset()
    """Issuing authorities that the root says are not to be believed, by `key_hash`."""

    @property
    def leaf(self) -> x509.Certificate:
        """The machine's own certificate."""
        return self.chain[0]

    def is_distrusted(self) -> bool:
        """Whether this machine's own certificate is of a distrusted authority."""
        return any(key_hash(public_key_of(one)) in self.distrusted for one in self.chain[1:])

    def anchor(self, address: str, now: datetime) -> x509.Certificate:
        """Whom a channel to this address may trust; see `protocol.tls.find_anchor`."""
        proxy = self.settings.proxy_for(address)
        return find_anchor(address, self.root, self.distrusted, now=now, proxy=proxy)

    def for_channel(self, anchor: x509.Certificate) -> grpc.ChannelCredentials:
        """What a channel to the controller shows and trusts."""
        return client_credentials(anchor, chain=self.chain, key=self.key)


def distrusted_by(home: AgentHome, root: x509.Certificate) -> frozenset[bytes]:
    """Which authorities the newest list that is kept here names.

    A list that cannot be read names none: who obeys orders refuses all of them then
    (`agent.tasks.revoked`), and the link is the way on which a whole one comes.
    """
    try:
        data = read_if_there(home.revocations)
        return frozenset() if data is None else read_revocations(data, root).distrusted
    except (OSError, SteadError):
        return frozenset()


def load_identity(home: AgentHome, former: AgentHome | None = None) -> Credentials:
    """Read who this machine is, or who it was by the files in `former`.

    Raises PRECONDITION when it is not enrolled or its files are not whole.
    """
    settings, parts = home.load_settings(), former or home
    if not parts.key.exists():
        token = home.first_token.exists()
        raise SteadError(
            f"this machine is not enrolled: {home.key} is not there; "
            + ("its agent enrolls it when it runs" if token else "run `stead-agent enroll`"),
            code=Code.PRECONDITION,
        )
    try:
        root = x509.load_pem_x509_certificate(parts.root.read_bytes())
        chain = tuple(x509.load_pem_x509_certificates(parts.chain.read_bytes()))
        key = load_pem_private_key(parts.key.read_bytes(), password=None)
        identity = identity_of(chain[0])
    except (OSError, ValueError, SteadError) as error:
        raise _broken(home, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(identity, MachineIdentity):
        raise _broken(home, "the key or the certificate is not a machine's")
    if key.public_key() != chain[0].public_key():
        raise _broken(home, "the certificate is for another key")
    return Credentials(settings, root, chain, key, identity, distrusted_by(home, root))


def load_sealing(home: AgentHome) -> tuple[bytes, VaultSecret]:
    """The public half of the machine's key for restores (32 bytes), and the tenant's secret.

    Raises PRECONDITION when either cannot be read.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        key = X25519PrivateKey.from_private_bytes(home.sealing_key.read_bytes())
        secret = decode_vault_secret(home.vault_secret.read_bytes())
    except (OSError, ValueError, SteadError) as error:
        raise _broken(home, str(error)) from error
    return key.public_key().public_bytes_raw(), secret


def _broken(home: AgentHome, why: str) -> SteadError:
    return SteadError(
        f"the identity in {home.path} cannot be used: {why}; put the files back, or run "
        "`stead-agent enroll --force` with a new token",
        code=Code.PRECONDITION,
    )


def open_channel(home: AgentHome) -> grpc.Channel:
    """A channel to the controller as this machine, for calls that block.

    Each call shows the token that is on the disk by then: the link may move it on meanwhile.
    Raises PRECONDITION for a machine that is not enrolled, and what `find_anchor` raises.
    """
    credentials = load_identity(home)
    address = credentials.settings.link_address
    options = channel_options(credentials.settings.proxy_for(address))
    shown = credentials.for_channel(credentials.anchor(address, clock.now()))
    channel = grpc.secure_channel(address, shown, options=options)

    def holder(method: str) -> Metadata:
        del method
        return ((METADATA_KEY, encode_holder(Holder(load_token(home)))),)

    return grpc.intercept_channel(channel, Attached(holder))
