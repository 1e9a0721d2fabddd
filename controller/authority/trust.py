"""Whom the controller believes right now: authorities, and what has been revoked.

Certificates are checked by TLS when a connection is made and here at every call, so
that a revocation takes effect on connections that live on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import Code
from protocol.identity import (
    Identity,
    IdentityError,
    MachineIdentity,
    OperatorIdentity,
    believe,
    identity_of,
    key_hash,
    made_at,
)

_CACHE_LIMIT = 50_000

TOLD: Mapping[Code, str] = {
    Code.REVOKED: "this machine was revoked; enroll it again with a new token",
    Code.RETIRED: "this machine was retired; to use the computer again, enroll it with a new token",
    Code.PARKED: "two computers say that they are this machine, and nobody can tell which it is: "
    "an operator decides with `stead machine approve`",
}
"""What a machine reads that is not let in."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller whose certificate is believed."""

    identity: Identity
    serial: int
    not_after: datetime
    key: bytes = b""
    """See `protocol.identity.key_hash`."""


@dataclass(slots=True)
class Trust:
    """The authorities and the revocations, in memory; the database holds the truth."""

    root: x509.Certificate
    issuing: tuple[x509.Certificate, ...]
    barred_machines: dict[str, Code] = field(default_factory=dict)
    """Machines that are not let in, and what they are told: REVOKED, RETIRED or PARKED."""
    waiting_machines: set[str] = field(default_factory=set)
    """Clones that nobody approved yet: they may be seen, and nothing else."""
    revoked_operators: set[str] = field(default_factory=set)
    revocations: bytes = b""
    """The list of revoked operators as the root signed it; empty when there is none."""
    shown: dict[str, x509.Certificate] = field(default_factory=dict)
    """Of each operator who has called, the newest certificate, until it is noted."""
    _seen: dict[bytes, Peer] = field(default_factory=dict)
    _listeners: list[Callable[[Identity, Code], None]] = field(default_factory=list)

    def peer_of(self, pem: bytes, now: datetime) -> Peer:
        """The caller behind a certificate; `IdentityError` says why there is none.

        The chain is checked once per certificate, time and revocation every time.
        """
        peer = self._seen.get(pem)
        if peer is None:
            leaf = x509.load_pem_x509_certificate(pem)
            try:
                identity = believe(
                    leaf, root=self.root, issuing=self.issuing, now=now, connecting=True
                )
            except IdentityError as error:
                if error.code is Code.EXPIRED:
                    self._check_revoked(identity_of(leaf))
                raise
            peer = Peer(identity, leaf.serial_number, leaf.not_valid_after_utc, _key_of(leaf))
            if len(self._seen) >= _CACHE_LIMIT:
                self._seen.clear()
            self._seen[pem] = peer
            self._note(identity, leaf)
        self._check_revoked(peer.identity)
        if now >= peer.not_after:
            raise IdentityError(
                f"the certificate ended at {peer.not_after:%Y-%m-%d %H:%M}Z; renew it",
                code=Code.EXPIRED,
            )
        return peer

    def revoke(self, identity: Identity, code: Code = Code.REVOKED) -> None:
        """Believe this machine or operator no longer, and tell whoever listens.

        `code` is what a machine is told: RETIRED and PARKED are other ways to be out.
        """
        match identity:
            case MachineIdentity(machine=machine):
                self.barred_machines[machine] = code
            case OperatorIdentity(name=name):
                self.revoked_operators.add(name)
        for listener in self._listeners:
            listener(identity, code)

    def wait(self, machine: MachineIdentity) -> None:
        """This machine is a clone, and waits for approval."""
        self.waiting_machines.add(machine.machine)

    def approve(self, machine: MachineIdentity) -> None:
        """Let a machine in again that was parked, or a clone that waited."""
        self.barred_machines.pop(machine.machine, None)
        self.waiting_machines.discard(machine.machine)

    def is_waiting(self, identity: Identity) -> bool:
        """True for a clone that nobody approved yet."""
        return isinstance(identity, MachineIdentity) and identity.machine in self.waiting_machines

    def on_revoked(self, listener: Callable[[Identity, Code], None]) -> None:
        """Call `listener` with every identity that is not believed from now on, and why."""
        self._listeners.append(listener)

    def load(
        self,
        machines: Mapping[str, Code],
        operators: Iterable[str],
        revocations: bytes = b"",
        waiting: Iterable[str] = (),
    ) -> None:
        """Take over what the database says of who was shut out before."""
        self.revocations = revocations
        self.barred_machines.update(machines)
        self.waiting_machines.update(waiting)
        self.revoked_operators.update(operators)

    def _note(self, identity: Identity, leaf: x509.Certificate) -> None:
        if not isinstance(identity, OperatorIdentity) or identity.connects_only:
            return
        known = self.shown.get(identity.name)
        if known is None or made_at(leaf) > made_at(known):
            self.shown[identity.name] = leaf

    def _check_revoked(self, identity: Identity) -> None:
        match identity:
            case MachineIdentity(machine=machine) if machine in self.barred_machines:
                code = self.barred_machines[machine]
                raise IdentityError(TOLD[code], code=code)
            case OperatorIdentity(name=name) if name in self.revoked_operators:
                raise IdentityError(f"the operator {name} was revoked", code=Code.REVOKED)
            case _:
                return


def _key_of(leaf: x509.Certificate) -> bytes:
    key = leaf.public_key()
    return key_hash(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""
