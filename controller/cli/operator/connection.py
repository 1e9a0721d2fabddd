"""From the command line to the controller: one channel, as the operator of the profile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from controller import clock
from controller.authority.authority import load_certificate
from controller.cli.operator.keyring import Keyring
from controller.cli.operator.passphrase import Whose, load_own_key
from controller.cli.operator.renewal import ended_error
from controller.config import OperatorHome
from controller.rpc.refusals import METADATA_KEY
from protocol.address import split_address
from protocol.attached import Attached
from protocol.codec import MAX_REFUSAL, read_revocations, refusal_from_pb
from protocol.errors import Code, InvalidError, SteadError, UnavailableError
from protocol.identity import OperatorIdentity, identity_of
from protocol.proxy import Proxy, proxy_for
from protocol.shown import shown_text
from protocol.tls import channel_options, client_credentials, explain_failure, find_anchor
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import (
    AuditServiceStub,
    ControllerServiceStub,
    MachineServiceStub,
    OperatorServiceStub,
    TenantServiceStub,
    TokenServiceStub,
)
from protocol.v1.parcel_pb2_grpc import ParcelServiceStub
from protocol.v1.policy_pb2_grpc import PolicyServiceStub
from protocol.v1.proof_pb2_grpc import ProofServiceStub
from protocol.v1.refusal_pb2 import Refusal
from protocol.v1.retention_pb2_grpc import RetentionServiceStub
from protocol.v1.vault_pb2_grpc import VaultServiceStub


@dataclass(frozen=True)
class Connection:
    """What a command needs of the controller and of the operator's profile."""

    home: OperatorHome
    address: str

    @cached_property
    def root(self) -> x509.Certificate:
        """The installation's root."""
        return load_certificate(self.home.root)

    @property
    def distrusted(self) -> frozenset[bytes]:
        """Issuing authorities that the newest list in the profile names, by their keys' hashes."""
        if not os.path.lexists(self.home.revocations):
            return frozenset()
        return read_revocations(self.home.revocations.read_bytes(), self.root).distrusted

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The operator's certificate."""
        return load_certificate(self.home.certificate)

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The operator's key: it signs orders and never leaves this machine.

        PRECONDITION where an ssh-agent holds it, which signs and does nothing else.
        """
        if self.home.held_by_agent:
            raise SteadError(
                "an ssh-agent holds the key of this profile, and it opens nothing that was sealed; "
                "have recovery keys brought by a file: `stead tenant key export` and `import`",
                code=Code.PRECONDITION,
            )
        return self.key_here

    @cached_property
    def key_here(self) -> ec.EllipticCurvePrivateKey:
        """The key that TLS is spoken with: the operator's own, or one for connecting alone."""
        return load_own_key(self.home.key_here, Whose.OPERATOR)

    def sign(self, data: bytes) -> bytes:
        """The operator's signature, ECDSA P-256 with SHA-256, in DER, wherever the key is."""
        if not self.home.held_by_agent:
            return self.key.sign(data, ec.ECDSA(SHA256()))
        from controller.cli.operator.ssh_agent import sign_by_agent

        public = self.certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return sign_by_agent(public, data)

    @cached_property
    def operator(self) -> OperatorIdentity:
        """Who the operator is, by the certificate."""
        identity = identity_of(self.certificate)
        if not isinstance(identity, OperatorIdentity):
            raise InvalidError(f"{self.home.certificate} is not an operator's certificate")
        return identity

    @cached_property
    def keyring(self) -> Keyring:
        """The tenants' keys of this profile."""
        return Keyring(self.home.tenants)

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel; made when it is first used. Raises what `find_anchor` raises."""
        leaf = self.certificate
        if self.home.held_by_agent:
            leaf = load_certificate(self.home.connect_certificate)
        anchor = find_anchor(
            self.address, self.root, self.distrusted, now=clock.now(), proxy=self.proxy
        )
        credentials = client_credentials(anchor, chain=[leaf], key=self.key_here)
        options = channel_options(self.proxy)
        channel = grpc.secure_channel(self.address, credentials, options=options)
        if self.home.held_by_agent:
            from controller.cli.operator.unlocking import Unlocking

            return grpc.intercept_channel(channel, Attached(Unlocking(self).of))
        return channel

    @cached_property
    def proxy(self) -> Proxy | None:
        """The HTTP proxy on the way, by `https_proxy` and `no_proxy` of the environment."""
        return proxy_for(split_address(self.address)[0], "", os.environ)

    @cached_property
    def controllers(self) -> ControllerServiceStub:
        """`ControllerService`."""
        return ControllerServiceStub(self.channel)

    @cached_property
    def tenants(self) -> TenantServiceStub:
        """`TenantService`."""
        return TenantServiceStub(self.channel)

    @cached_property
    def operators(self) -> OperatorServiceStub:
        """`OperatorService`."""
        return OperatorServiceStub(self.channel)

    @cached_property
    def tokens(self) -> TokenServiceStub:
        """`TokenService`."""
        return TokenServiceStub(self.channel)

    @cached_property
    def proofs(self) -> ProofServiceStub:
        """`ProofService`."""
        return ProofServiceStub(self.channel)

    @cached_property
    def machines(self) -> MachineServiceStub:
        """`MachineService`."""
        return MachineServiceStub(self.channel)

    @cached_property
    def jobs(self) -> JobServiceStub:
        """`JobService`."""
        return JobServiceStub(self.channel)

    @cached_property
    def policies(self) -> PolicyServiceStub:
        """`PolicyService`."""
        return PolicyServiceStub(self.channel)

    @cached_property
    def vault(self) -> VaultServiceStub:
        """`VaultService`."""
        return VaultServiceStub(self.channel)

    @cached_property
    def parcels(self) -> ParcelServiceStub:
        """`ParcelService`."""
        return ParcelServiceStub(self.channel)

    @cached_property
    def retention(self) -> RetentionServiceStub:
        """`RetentionService`."""
        return RetentionServiceStub(self.channel)

    @cached_property
    def audit(self) -> AuditServiceStub:
        """`AuditService`."""
        return AuditServiceStub(self.channel)

    def explain(self, error: grpc.RpcError) -> SteadError:
        """What a failed call means: the controller's own words where there are some."""
        call = _call(error)
        if call is None:
            return UnavailableError(str(error))
        for key, value in call.trailing_metadata() or ():
            if key == METADATA_KEY and isinstance(value, bytes):
                return refusal_from_pb(Refusal.FromString(value))
        if call.code() is grpc.StatusCode.UNAVAILABLE:
            # While something was watched: no handshake succeeds with it any more.
            if (ended := ended_error(self.certificate, clock.now())) is not None:
                return ended
            return explain_failure(self.address, self.root, now=clock.now(), proxy=self.proxy)
        if call.code() is grpc.StatusCode.UNIMPLEMENTED:
            return SteadError(
                "this controller does not know the call; is it an older release?",
                code=Code.UNSUPPORTED,
            )
        words = shown_text(call.details() or call.code().name, longest=MAX_REFUSAL)
        return SteadError(f"the call failed: {words}")


def _call(error: object) -> grpc.Call | None:
    """An error of a call is the call itself, which the type stubs do not know."""
    return error if isinstance(error, grpc.Call) else None
