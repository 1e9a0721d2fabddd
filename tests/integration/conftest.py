"""A real controller in the test's own event loop: loopback, free ports, a temporary home."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.app import Controller
from controller.audit.chain import Entry, Verified, verify
from controller.audit.log import entries
from controller.authority.authority import ServingCertificate, load_certificate, load_key
from controller.authority.certificates import Issuer, certify_operator
from controller.authority.init import Initialised, initialise
from controller.authority.keys import new_key, new_serial
from protocol.action import Action, CollectInventory
from protocol.codec import encode_envelope, encode_order
from protocol.identity import OperatorIdentity, Role, pin_of
from protocol.ids import MachineId, OrderId, TenantId, TokenId
from protocol.order import Order, sign
from protocol.tls import CHANNEL_OPTIONS, client_credentials
from protocol.token import Token, hash_secret, seal_bundle
from protocol.v1 import enrollment_pb2, operator_pb2
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from protocol.v1.operator_pb2_grpc import TenantServiceStub, TokenServiceStub
from tests.fakes.new_database import new_installation

SECRET = b"the tenant's vault secret"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A synthetic machine: what a real agent would have after `stead-agent enroll`."""

    id: MachineId
    tenant: TenantId
    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    answer: enrollment_pb2.EnrollResponse


def signing_request(key: Any) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


class Installation:
    """A running controller with its operator's desk beside it."""

    def __init__(self, home: Path, made: Initialised, controller: Controller) -> None:
        self.home = home
        self.made = made
        self.controller = controller
        self.root = load_certificate(made.root.certificate)
        self.root_issuer = Issuer(self.root, load_key(made.root.key))
        self.admin_key = load_key(made.operator.key)
        self.admin_certificate = load_certificate(made.operator.certificate)
        if self.admin_certificate.not_valid_after_utc <= clock.now():
            self.admin_key, self.admin_certificate = self.operator("admin", Role.ADMIN)
        self._channels: list[grpc.aio.Channel] = []

    @property
    def link_address(self) -> str:
        return self.controller.addresses.link

    @property
    def enrollment_address(self) -> str:
        return self.controller.addresses.enrollment

    def channel(
        self,
        key: ec.EllipticCurvePrivateKey | None = None,
        *chain: x509.Certificate,
        address: str | None = None,
        root: x509.Certificate | None = None,
        options: Sequence[tuple[str, int]] = (),
    ) -> grpc.aio.Channel:
        """A channel of its own connection to the link port; closed with the installation."""
        channel = grpc.aio.secure_channel(
            address or self.link_address,
            client_credentials(root or self.root, chain=chain, key=key),
            options=[*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1), *options],
        )
        self._channels.append(channel)
        return channel

    def enrollment_channel(self) -> grpc.aio.Channel:
        return self.channel(address=self.enrollment_address)

    def admin(self) -> grpc.aio.Channel:
        """A channel of the first administrator."""
        return self.channel(self.admin_key, self.admin_certificate)

    def operator(
        self,
        name: str,
        role: Role,
        tenants: frozenset[TenantId] | None = None,
        *,
        lifetime: timedelta = timedelta(days=1),
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """A new operator's key and certificate, signed by the root."""
        key = new_key()
        certificate = certify_operator(
            self.root_issuer,
            key.public_key(),
            OperatorIdentity(name, role, tenants),
            serial=new_serial(),
            now=clock.now(),
            lifetime=lifetime,
        )
        return key, certificate

    def signed_order(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        tenant: TenantId,
        *machines: MachineId,
        action: Action = CollectInventory(),  # noqa: B008 - frozen
    ) -> bytes:
        """An order as an operator's command line signs it: an envelope, encoded."""
        now = clock.now()
        order = Order(
            id=OrderId(clock.new_id("or")),
            tenant=tenant,
            machines=machines,
            action=action,
            issued_at=now,
            not_before=now,
            deliver_by=now + timedelta(hours=1),
            timeout=timedelta(minutes=1),
        )
        return encode_envelope(sign(encode_order(order), key=key, certificate=certificate))

    def machine_channel(self, machine: Enrolled) -> grpc.aio.Channel:
        return self.channel(machine.key, *machine.chain)

    @property
    def serving(self) -> ServingCertificate:
        """The controller's own certificate."""
        return self.controller._server._certificate

    async def audit(self, tenant: str = "") -> list[Entry]:
        """A tenant's whole audit log, or the installation's, checked for being whole."""
        db = self.controller.parts.db
        found = await db.read(lambda c: entries(c, tenant, limit=100_000))
        assert isinstance(verify(found, tenant), Verified)
        return found

    async def add_tenant(self, name: str = "acme") -> TenantId:
        """A tenant by its id."""
        tenant = TenantId(clock.new_id("tn"))
        await TenantServiceStub(self.admin()).AddTenant(
            operator_pb2.AddTenantRequest(tenant_id=tenant, name=name, recovery_key=bytes(32))
        )
        return tenant

    async def add_token(
        self, tenant: TenantId, *, uses: int = 1, ttl_s: int = 3600, tags: tuple[str, ...] = ()
    ) -> Token:
        """A token as `stead token new` makes one; its bundle holds `SECRET`."""
        token_id = TokenId(clock.new_id("tk"))
        secret, opening = os.urandom(16), os.urandom(16)
        answer = await TokenServiceStub(self.admin()).CreateToken(
            operator_pb2.CreateTokenRequest(
                token_id=token_id,
                tenant_id=tenant,
                secret_hash=hash_secret(secret),
                sealed_bundle=seal_bundle(opening, token_id, tenant, SECRET),
                uses=uses,
                ttl_s=ttl_s,
                tags=tags,
            )
        )
        return Token(token_id, secret, opening, pin_of(self.root), answer.enrollment_address)

    async def enroll(
        self,
        token: Token,
        hostname: str = "web-01.example.com",
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Enrolled:
        """Enroll a synthetic machine with a token."""
        key = new_key() if key is None else key
        answer = await EnrollmentServiceStub(self.enrollment_channel()).Enroll(
            enrollment_pb2.EnrollRequest(
                token_id=token.id,
                token_secret=token.secret,
                signing_request=signing_request(key),
                hostname=hostname,
                agent_version="0.1.0",
            )
        )
        return Enrolled(
            id=MachineId(answer.machine_id),
            tenant=TenantId(answer.tenant_id),
            name=answer.name,
            key=key,
            chain=tuple(x509.load_der_x509_certificate(der) for der in answer.certificate_chain),
            answer=answer,
        )

    async def new_machine(self, tenant: TenantId, hostname: str = "web-01") -> Enrolled:
        """A synthetic machine, enrolled with a token of its own."""
        return await self.enroll(await self.add_token(tenant), hostname)

    async def restart(self) -> None:
        """Stop the controller and start it again on the same home; the ports change."""
        await self._close_channels()
        await self.controller.stop(timedelta())
        self.controller = await Controller.serve(self.home)

    async def close(self) -> None:
        await self._close_channels()
        await self.controller.stop(timedelta())

    async def _close_channels(self) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels.clear()


async def install(home: Path, *, age: timedelta = timedelta()) -> Installation:
    """Make an installation below `home`, as if so long ago, and start its controller."""
    if not age:
        return Installation(home, new_installation(home), await Controller.serve(home))
    made = initialise(
        home,
        names=["127.0.0.1", "localhost"],
        now=clock.now() - age,
        listen="127.0.0.1:0",
        enroll_listen="127.0.0.1:0",
    )
    return Installation(home, made, await Controller.serve(home))


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """A fresh installation with a running controller."""
    running = await install(tmp_path / "home")
    yield running
    await running.close()
