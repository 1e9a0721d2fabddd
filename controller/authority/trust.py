"""Whom the controller believes right now: authorities, and what has been revoked.

Certificates are checked by TLS when a connection is made and here at every call, so
that a revocation takes effect on connections that live on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    revoked_machines: set[str] = field(default_factory=set)
    revoked_operators: set[str] = field(default_factory=set)
    revocations: bytes = b""
    """The list of revoked operators as the root signed it; empty when there is none."""
    shown: dict[str, x509.Certificate] = field(default_factory=dict)
    """Of each operator who has called, the newest certificate, until it is noted."""
    _seen: dict[bytes, Peer] = field(default_factory=dict)
    _listeners: list[Callable[[Identity], None]] = field(default_factory=list)

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

    def revoke(self, identity: Identity) -> None:
        """Believe this machine or operator no longer, and tell whoever listens."""
        match identity:
            case MachineIdentity(machine=machine):
                self.revoked_machines.add(machine)
            case OperatorIdentity(name=name):
                self.revoked_operators.add(name)
        for listener in self._listeners:
            listener(identity)

    def on_revoked(self, listener: Callable[[Identity], None]) -> None:
        """Call `listener` with every identity that is revoked from now on."""
        self._listeners.append(listener)

    def load(
        self, machines: Iterable[str], operators: Iterable[str], revocations: bytes = b""
    ) -> None:
        """Take over what the database says was revoked before."""
        self.revocations = revocations
        self.revoked_machines.update(machines)
        self.revoked_operators.update(operators)

    def _note(self, identity: Identity, leaf: x509.Certificate) -> None:
        if not isinstance(identity, OperatorIdentity) or identity.connects_only:
            return
        known = self.shown.get(identity.name)
        if known is None or made_at(leaf) > made_at(known):
            self.shown[identity.name] = leaf

    def _check_revoked(self, identity: Identity) -> None:
        match identity:
            case MachineIdentity(machine=machine) if machine in self.revoked_machines:
                raise IdentityError(
                    "this machine was revoked; enroll it again with a new token",
                    code=Code.REVOKED,
                )
            case OperatorIdentity(name=name) if name in self.revoked_operators:
                raise IdentityError(f"the operator {name} was revoked", code=Code.REVOKED)
            case _:
                return


def _key_of(leaf: x509.Certificate) -> bytes:
    key = leaf.public_key()
    return key_hash(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""
