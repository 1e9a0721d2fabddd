"""A small controller in full control of what it says: real gRPC over real mutual TLS.

It owns an installation of its own (root, issuing authority, operators), so it can
also stand for a controller that was taken over: whatever it wants to send, it sends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.config import AgentHome, Settings, render_settings
from agent.tasks.journal import new_journal
from protocol.codec import outcome_from_pb, refusal_to_pb, to_ms
from protocol.errors import SteadError
from protocol.identity import ControllerIdentity, Identity, MachineIdentity, OperatorIdentity, Role
from protocol.ids import MachineId, TaskId, TenantId, make_id
from protocol.outcome import Outcome
from protocol.tls import (
    AUTHORITY_EXTENSION,
    CHANNEL_OPTIONS,
    ROOT_EXTENSION,
    chain_pem,
    private_pem,
)
from protocol.v1 import enrollment_pb2, inventory_pb2, link_pb2
from protocol.v1.enrollment_pb2_grpc import (
    EnrollmentServiceServicer,
    add_EnrollmentServiceServicer_to_server,
)
from protocol.v1.inventory_pb2_grpc import (
    InventoryServiceServicer,
    add_InventoryServiceServicer_to_server,
)
from protocol.v1.link_pb2_grpc import LinkServiceServicer, add_LinkServiceServicer_to_server
from protocol.vault.keys import TenantKey, encode_vault_secret

TENANT_KEY = TenantKey(bytes(range(32)))
DAY = timedelta(days=1)


def fresh(prefix: str) -> str:
    """A new id."""
    at = to_ms(datetime.now(UTC))
    return make_id(prefix, at_ms=at, random=os.urandom(10))


@dataclass(frozen=True)
class Authority:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def certify(
    name: str,
    *,
    by: Authority | None = None,
    ca: bool = False,
    identity: Identity | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    begins: datetime | None = None,
    life: timedelta = 30 * DAY,
    root: x509.Certificate | None = None,
    shown: x509.Certificate | None = None,
) -> Authority:
    """Make a certificate, right or wrong, as the caller wants it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = begins or datetime.now(UTC) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    names: list[x509.GeneralName] = []
    if identity is not None:
        names.append(x509.UniformResourceIdentifier(identity.uri()))
    if isinstance(identity, ControllerIdentity):
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, certificate in ((ROOT_EXTENSION, root), (AUTHORITY_EXTENSION, shown)):
        if certificate is not None:
            carried = x509.UnrecognizedExtension(extension, certificate.public_bytes(Encoding.DER))
            builder = builder.add_extension(carried, critical=False)
    return Authority(builder.sign(by.key if by else key, SHA256()), key)


@dataclass
class Realm:
    """An installation: root, issuing authority, the controller's own certificate, a tenant."""

    root: Authority = field(default_factory=lambda: certify("root", ca=True, life=3650 * DAY))
    tenant: TenantId = field(default_factory=lambda: TenantId(fresh("tn")))

    def __post_init__(self) -> None:
        self.issuing = certify("issuing", by=self.root, ca=True, life=365 * DAY)
        self.server = certify(
            "controller",
            by=self.issuing,
            identity=ControllerIdentity(),
            root=self.root.certificate,
            shown=self.issuing.certificate,
        )

    def operator(self, role: Role = Role.ADMIN, **changes: Any) -> Authority:
        """An operator whom the root signed, unless `by` says otherwise."""
        given: dict[str, Any] = {"by": self.root, "identity": OperatorIdentity("ann", role, None)}
        return certify("ann", **(given | changes))

    def machine(self, identity: MachineIdentity, **changes: Any) -> Authority:
        """A machine's certificate."""
        return certify("machine", by=self.issuing, identity=identity, **changes)

    def furnish(
        self, home: AgentHome, address: str, enrollment: str = "", **changes: Any
    ) -> MachineIdentity:
        """Put a home in place as enrollment leaves it."""
        identity = MachineIdentity(self.tenant, MachineId(fresh("mc")))
        made = self.machine(identity, **changes)
        home.path.mkdir(parents=True, mode=0o700)
        home.key.write_bytes(private_pem(made.key))
        home.chain.write_bytes(chain_pem([made.certificate, self.issuing.certificate]))
        home.root.write_bytes(chain_pem([self.root.certificate]))
        home.sealing_key.write_bytes(bytes(range(1, 33)))
        home.vault_secret.write_bytes(encode_vault_secret(TENANT_KEY.secret))
        home.journal.write_bytes(new_journal())
        home.settings.write_bytes(render_settings(Settings(address, enrollment or address)))
        for path in (home.key, home.sealing_key, home.vault_secret):
            path.chmod(0o600)
        return identity


def certify_key(
    realm: Realm, identity: MachineIdentity, key: ec.EllipticCurvePublicKey, **changes: Any
) -> x509.Certificate:
    """A machine's certificate for a key that the realm has not got."""
    made = realm.machine(identity, **changes).certificate
    builder = x509.CertificateBuilder(
        made.issuer,
        made.subject,
        key,
        made.serial_number,
        made.not_valid_before_utc,
        made.not_valid_after_utc,
        list(made.extensions),
    )
    return builder.sign(realm.issuing.key, SHA256())


@dataclass
class Visit:
    """One agent's connection, as the controller sees it."""

    hello: link_pb2.Hello
    to_send: asyncio.Queue[link_pb2.ConnectResponse | SteadError | None]

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.to_send.put_nowait(link_pb2.ConnectResponse(**message))

    def offer(self, task: str, envelope: bytes) -> None:
        """Offer a task."""
        self.say(task_offer=link_pb2.TaskOffer(task_id=task, envelope=envelope))

    def end(self, error: SteadError | None = None) -> None:
        """End the connection, with a refusal if one is given."""
        self.to_send.put_nowait(error)


class LinkServer(LinkServiceServicer, InventoryServiceServicer, EnrollmentServiceServicer):
    """All that an agent needs, on one port; `visits` and `said` tell what came."""

    def __init__(self, realm: Realm, *, acknowledge: bool = True, heartbeat_s: int = 30) -> None:
        self.realm = realm
        self.acknowledge = acknowledge
        self.heartbeat_s = heartbeat_s
        self.revision = 1
        """Of the protocol, that Welcome names."""
        self.runs: dict[str, link_pb2.StandingRun] = {}
        """Of standing orders, by task."""
        self.controller_ahead = timedelta()
        self.ratchet = b""
        """The token that Welcome hands out."""
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.outcomes: list[Outcome] = []
        self.outputs: dict[str, dict[int, link_pb2.TaskOutput]] = {}
        self.heartbeats: list[link_pb2.Heartbeat] = []
        self.refuse: SteadError | None = None
        self.enroll: Callable[[enrollment_pb2.EnrollRequest], enrollment_pb2.EnrollResponse]
        self.rekey: Callable[[enrollment_pb2.RekeyRequest], enrollment_pb2.RekeyResponse]
        self.may_renew = asyncio.Event()
        """Renewals wait for this; set unless a test clears it."""
        self.may_renew.set()
        self.renew: Callable[[enrollment_pb2.RenewRequest], enrollment_pb2.RenewResponse]
        self.address = ""
        self.open_address = ""
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> LinkServer:
        options = [*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        add_LinkServiceServicer_to_server(self, self._server)
        add_InventoryServiceServicer_to_server(self, self._server)
        add_EnrollmentServiceServicer_to_server(self, self._server)
        shown = chain_pem([self.realm.server.certificate, self.realm.issuing.certificate])
        pair = [(private_pem(self.realm.server.key), shown)]
        mutual = grpc.ssl_server_credentials(
            pair, chain_pem([self.realm.root.certificate]), require_client_auth=True
        )
        self.address = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', mutual)}"
        plain = grpc.ssl_server_credentials(pair)
        self.open_address = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', plain)}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def Connect(  # noqa: N802
        self, request_iterator: AsyncIterator[link_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[link_pb2.ConnectResponse]:
        if self.refuse is not None:
            await _abort(context, self.refuse)
        first = await anext(request_iterator)
        visit = Visit(first.hello, asyncio.Queue())
        yield link_pb2.ConnectResponse(
            welcome=link_pb2.Welcome(
                controller_time_ms=to_ms(datetime.now(UTC) + self.controller_ahead),
                heartbeat_interval_s=self.heartbeat_s,
                revision=self.revision,
                controller_version="0",
                ratchet=self.ratchet,
            )
        )
        listening = asyncio.create_task(self._listen(request_iterator, visit))
        self.visits.put_nowait(visit)
        try:
            while True:
                message = await visit.to_send.get()
                if isinstance(message, SteadError):
                    await _abort(context, message)
                if not isinstance(message, link_pb2.ConnectResponse):
                    return
                yield message
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, requests: AsyncIterator[link_pb2.ConnectRequest], visit: Visit) -> None:
        async for message in requests:
            match message.WhichOneof("message"):
                case "heartbeat":
                    self.heartbeats.append(message.heartbeat)
                    at = to_ms(datetime.now(UTC) + self.controller_ahead)
                    answer = link_pb2.HeartbeatAcknowledged(controller_time_ms=at)
                    visit.say(heartbeat_acknowledged=answer)
                case "task_started" if message.task_started.HasField("run"):
                    self.runs[message.task_started.task_id] = message.task_started.run
                case "task_output":
                    piece = message.task_output
                    self.outputs.setdefault(piece.task_id, {})[piece.sequence] = piece
                case "task_outcome":
                    self.outcomes.append(outcome_from_pb(message.task_outcome))
                    if self.acknowledge:
                        task = message.task_outcome.task_id
                        visit.say(outcome_acknowledged=link_pb2.OutcomeAcknowledged(task_id=task))
            async with self._changed:
                self._changed.notify_all()

    async def Report(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take every inventory for known already."""
        from agent.inventory.delta import root_of

        root = root_of({section.name: section.hash for section in request.sections})
        return inventory_pb2.ReportResponse(root=root)

    async def Enroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(self.enroll, request, context)

    async def Rekey(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(self.rekey, request, context)

    async def Renew(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.may_renew.wait()
        return await _answered(self.renew, request, context)

    async def visit(self, *, wait: float = 30.0) -> Visit:
        """The next agent that connects."""
        return await asyncio.wait_for(self.visits.get(), wait)

    async def outcome_of(self, task: str, *, wait: float = 30.0) -> Outcome:
        """The first outcome of a task, as soon as it is there."""
        async with asyncio.timeout(wait), self._changed:
            while True:
                for outcome in self.outcomes:
                    if outcome.task == task:
                        return outcome
                await self._changed.wait()

    async def until(self, true: Callable[[], bool], *, wait: float = 30.0) -> None:
        """Wait for something that messages bring about."""
        async with asyncio.timeout(wait), self._changed:
            await self._changed.wait_for(true)

    def printed(self, task: str) -> bytes:
        """What a task printed, in order."""
        pieces = self.outputs.get(task, {})
        assert sorted(pieces) == list(range(len(pieces)))
        return b"".join(pieces[number].data for number in sorted(pieces))


async def _answered(answer: Callable[[Any], Any], request: Any, context: Any) -> Any:
    try:
        return answer(request)
    except SteadError as error:
        await _abort(context, error)


async def _abort(context: Any, error: SteadError) -> None:
    detail = refusal_to_pb(error).SerializeToString()
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED, str(error), (("stead-refusal-bin", detail),)
    )


def new_task() -> TaskId:
    """A task id as a controller makes it."""
    return TaskId(fresh("ts"))


def home_in(directory: Path) -> AgentHome:
    """The agent's home below `--home`."""
    return AgentHome(directory / "agent")
