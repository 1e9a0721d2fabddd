"""Who this machine is: its certificate, its key, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.config import AgentHome, Settings
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, identity_of
from protocol.tls import channel_options, client_credentials
from protocol.vault.keys import VaultSecret, decode_vault_secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """A machine's identity with what proves it. `chain` is leaf first."""

    settings: Settings
    root: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey
    identity: MachineIdentity

    @property
    def leaf(self) -> x509.Certificate:
        """The machine's own certificate."""
        return self.chain[0]

    def for_channel(self) -> grpc.ChannelCredentials:
        """What a channel to the controller shows and trusts."""
        return client_credentials(self.root, chain=self.chain, key=self.key)


def load_identity(home: AgentHome) -> Credentials:
    """Read who this machine is.

    Raises PRECONDITION when it is not enrolled or its files are not whole.
    """
    settings = home.load_settings()
    if not home.key.exists():
        token = home.first_token.exists()
        raise SteadError(
            f"this machine is not enrolled: {home.key} is not there; "
            + ("its agent enrolls it when it runs" if token else "run `stead-agent enroll`"),
            code=Code.PRECONDITION,
        )
    try:
        root = x509.load_pem_x509_certificate(home.root.read_bytes())
        chain = tuple(x509.load_pem_x509_certificates(home.chain.read_bytes()))
        key = load_pem_private_key(home.key.read_bytes(), password=None)
        identity = identity_of(chain[0])
    except (OSError, ValueError, SteadError) as error:
        raise _broken(home, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(identity, MachineIdentity):
        raise _broken(home, "the key or the certificate is not a machine's")
    if key.public_key() != chain[0].public_key():
        raise _broken(home, "the certificate is for another key")
    return Credentials(settings, root, chain, key, identity)


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


def open_channel(credentials: Credentials) -> grpc.Channel:
    """A channel to the controller as this machine, for calls that block."""
    address = credentials.settings.link_address
    options = channel_options(credentials.settings.proxy_for(address))
    return grpc.secure_channel(address, credentials.for_channel(), options=options)
