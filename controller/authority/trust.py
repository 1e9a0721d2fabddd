"""Whom the controller believes right now: authorities, and what has been revoked.

Certificates are checked by TLS when a connection is made and here at every call, so
that a revocation takes effect on connections that live on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from controller.authority.holding import Holding
from protocol.errors import Code
from protocol.identity import (
    Identity,
    IdentityError,
    MachineIdentity,
    OperatorIdentity,
    authority_of,
    believe,
    identity_of,
    key_hash,
    made_at,
    public_key_of,
)

_CACHE_LIMIT = 50_000

TOLD: Mapping[Code, str] = {
    Code.REVOKED: "this machine was revoked; enroll it again with a new token",
    Code.RETIRED: "this machine was retired; to use the computer again, enroll it with a new token",
    Code.PARKED: "two computers say that they are this machine, and nobody can tell which it is: "
    "an operator decides with `stead machine approve`",
    Code.DISTRUSTED: "this machine's certificate is of an authority that is not believed any "
    "more; its agent renews it",
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
    issuer: bytes = b""
    """The hash of the key of the issuing authority behind a machine; empty for an operator."""


@dataclass(slots=True)
class Trust:
    """The authorities and the revocations, in memory; the database holds the truth."""

    root: x509.Certificate
    issuing: tuple[x509.Certificate, ...]
    barred_machines: dict[str, Code] = field(default_factory=dict)
    """Machines that are not let in, and what they are told: REVOKED, RETIRED or PARKED."""
    machine_keys: dict[str, bytes] = field(default_factory=dict)
    """Of every machine that was ever let in, the hash of its key: what an issuing authority's
    word is held against, for whoever stole that can certify any key as any machine's."""
    holding: Holding = field(default_factory=Holding)
    """Which state of each machine counts."""
    waiting_machines: set[str] = field(default_factory=set)
    """Clones that nobody approved yet: they may be seen, and nothing else."""
    revoked_operators: set[str] = field(default_factory=set)
    revocations: bytes = b""
    """The list of who is not believed as the root signed it; empty when there is none."""
    distrusted: frozenset[bytes] = frozenset()
    """The keys of issuing authorities that the list names."""
    shown: dict[str, x509.Certificate] = field(default_factory=dict)
    """Of each operator who has called, the newest certificate, until it is noted."""
    _seen: dict[bytes, Peer] = field(default_factory=dict)
    _listeners: list[Callable[[Identity, Code], None]] = field(default_factory=list)
    _distrust_listeners: list[Callable[[frozenset[bytes]], None]] = field(default_factory=list)

    def peer_of(self, pem: bytes, now: datetime) -> Peer:
        """The caller behind a certificate; `IdentityError` says why there is none.

        The chain is checked once per certificate, time and revocation every time.
        """
        peer = self._seen.get(pem)
        if peer is None:
            leaf = x509.load_pem_x509_certificate(pem)
            try:
                identity = self.believed(leaf, now, connecting=True)
            except IdentityError as error:
                if error.code is Code.EXPIRED:
                    self._check_revoked(identity_of(leaf))
                raise
            key = key_hash(public_key_of(leaf))
            self._check_key(identity, key)
            peer = Peer(
                identity,
                leaf.serial_number,
                leaf.not_valid_after_utc,
                key,
                self._issuer_of(identity, leaf),
            )
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

    def believed(
        self, leaf: x509.Certificate, now: datetime, *, connecting: bool = False
    ) -> Identity:
        """Whom a certificate proves by the authorities of now; see `protocol.identity.believe`."""
        return believe(
            leaf,
            root=self.root,
            issuing=self.issuing,
            now=now,
            connecting=connecting,
            distrusted=self.distrusted,
        )

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

    def distrust(self, authorities: frozenset[bytes]) -> None:
        """Believe nobody any more whom these authorities certified, and tell whoever listens."""
        self.distrusted |= authorities
        self._seen.clear()
        for listener in self._distrust_listeners:
            listener(self.distrusted)

    def on_distrusted(self, listener: Callable[[frozenset[bytes]], None]) -> None:
        """Call `listener` with all distrusted authorities when there are more of them."""
        self._distrust_listeners.append(listener)

    def admit(self, machine: MachineIdentity, key: bytes, *, waiting: bool) -> None:
        """Let a machine with this key in. `waiting`: it is a clone, and waits for approval."""
        self.machine_keys[machine.machine] = key
        if waiting:
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
        distrusted: frozenset[bytes] = frozenset(),
        keys: Mapping[str, bytes] | None = None,
    ) -> None:
        """Take over what the database says of who was let in and who was shut out before."""
        self.machine_keys.update(keys or {})
        self.revocations = revocations
        self.distrusted = distrusted
        self.barred_machines.update(machines)
        self.waiting_machines.update(waiting)
        self.revoked_operators.update(operators)

    def _check_key(self, identity: Identity, key: bytes) -> None:
        if not isinstance(identity, MachineIdentity):
            return
        known = self.machine_keys.get(identity.machine)
        if known is None:
            raise IdentityError(
                "the controller does not know this machine; enroll it again with a new token",
                code=Code.UNKNOWN_MACHINE,
            )
        if known != key:
            raise IdentityError("the certificate is not for this machine's key")

    def _issuer_of(self, identity: Identity, leaf: x509.Certificate) -> bytes:
        if isinstance(identity, OperatorIdentity):
            return b""
        return key_hash(public_key_of(authority_of(leaf, self.issuing)))

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
