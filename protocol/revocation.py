"""Who is not believed any more, as the root says it to every machine.

Pure. The root signs a list that stands for all before it; its version only grows. A
controller can keep a list back and can neither make one nor bring an old one back.

A revoked operator is refused at once, whatever time an order claims: who holds the key
can date it as they like. Only the machine's own note of when it took a standing order
in is held against `revoked_at`.

A distrusted issuing authority proves nothing at all, for whoever holds its key can date a
certificate as they like, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.document import check_document, is_newer, signature_over
from protocol.errors import Code, InvalidError, SteadError
from protocol.order import CLOCK_TOLERANCE, Signer

DOMAIN = b"stead revocations v1\0"
KEY_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class RevokedOperator:
    """A name, and the key, that count no more. `key_hash` may be empty: not known."""

    name: str
    key_hash: bytes
    revoked_at: datetime


@dataclass(frozen=True, slots=True)
class DistrustedAuthority:
    """An issuing authority, by its key; `name` is that of its certificate, for people."""

    key_hash: bytes
    name: str
    distrusted_at: datetime


@dataclass(frozen=True, slots=True)
class Revocations:
    """A list that the root signed. Version 0 is no list."""

    version: int
    issued_at: datetime
    operators: tuple[RevokedOperator, ...]
    authorities: tuple[DistrustedAuthority, ...] = ()

    @property
    def distrusted(self) -> frozenset[bytes]:
        """The keys of the authorities in the list; see `protocol.identity.believe`."""
        return frozenset(one.key_hash for one in self.authorities)

    def of(self, signer: Signer) -> RevokedOperator | None:
        """The entry that revokes a signer, by name or by key; the earliest of several."""
        found = [
            one
            for one in self.operators
            if one.name == signer.identity.name or one.key_hash == signer.key
        ]
        return min(found, key=lambda one: one.revoked_at, default=None)


NO_REVOCATIONS = Revocations(0, datetime(1970, 1, 1, tzinfo=UTC), ())


@dataclass(frozen=True, slots=True)
class SignedRevocations:
    """A list's exact bytes with the root's signature, in DER."""

    list: bytes
    signature: bytes


def sign_revocations(data: bytes, key: ec.EllipticCurvePrivateKey) -> SignedRevocations:
    """Sign a list's bytes with the root's key."""
    return SignedRevocations(data, signature_over(DOMAIN, data, key))


def check_signed(signed: SignedRevocations, root: x509.Certificate) -> None:
    """Raise BAD_SIGNATURE unless this root signed these very bytes."""
    what = "the list of revoked operators"
    check_document(DOMAIN, signed.list, signed.signature, root, what=what)


def checked(revocations: Revocations) -> Revocations:
    """The list, unless it makes no sense: then INVALID."""
    if revocations.version < 1:
        raise InvalidError("a list of revoked operators has a version from 1 on")
    keys = [one.key_hash for one in revocations.operators if one.key_hash]
    keys += [one.key_hash for one in revocations.authorities]
    if any(len(key) != KEY_HASH_BYTES for key in keys):
        raise InvalidError(f"the hash of a key has {KEY_HASH_BYTES} bytes")
    return revocations


def newer(present: Revocations, offered: Revocations) -> bool:
    """True when an offered list is to be taken, false when it is the present one.

    Raises REPLAYED for a lower version, and for another list of the same version.
    """
    return is_newer(present, offered, what="a list of revoked operators")


def plan_revocation(present: Revocations, gone: RevokedOperator, *, now: datetime) -> Revocations:
    """The next list, with one operator more.

    An operator who is in it is revoked from the earlier of both times on, and no key that
    is known is forgotten.
    """
    others = []
    for one in present.operators:
        if one.name == gone.name and gone.key_hash in {one.key_hash, b""}:
            gone = replace(
                gone,
                revoked_at=min(one.revoked_at, gone.revoked_at),
                key_hash=gone.key_hash or one.key_hash,
            )
        else:
            others.append(one)
    operators = tuple(sorted((*others, gone), key=lambda one: (one.name, one.key_hash)))
    return Revocations(present.version + 1, now, operators, present.authorities)


def plan_distrust(
    present: Revocations, gone: Iterable[DistrustedAuthority], *, now: datetime
) -> Revocations:
    """The next list, with these authorities more. One that is in it stays as it is."""
    known = present.distrusted
    added = {one.key_hash: one for one in gone if one.key_hash not in known}
    authorities = (*present.authorities, *(added[key] for key in sorted(added)))
    return Revocations(present.version + 1, now, present.operators, authorities)


def check_not_revoked(
    revocations: Revocations, signer: Signer, *, taken_in_at: datetime | None = None
) -> None:
    """Raise REVOKED for a signer in the list.

    `taken_in_at` is for a standing order alone: when this machine, by its own note, took it
    in. One that was there before its signer's revocation goes on.
    """
    found = revocations.of(signer)
    if found is None:
        return
    if taken_in_at is not None and taken_in_at + CLOCK_TOLERANCE < found.revoked_at:
        return
    raise SteadError(
        f"the operator {signer.identity.name} was revoked as of "
        f"{found.revoked_at:%Y-%m-%d %H:%M:%S}Z; have somebody else order it",
        code=Code.REVOKED,
    )


def check_current(revocations: Revocations, wanted: int) -> None:
    """Raise STALE_REVOCATIONS when an order's signer knew a later list than this machine."""
    if wanted > revocations.version:
        raise SteadError(
            f"the order's signer knew version {wanted} of the list of revoked operators, and "
            f"this machine has been given no later one than {revocations.version}",
            code=Code.STALE_REVOCATIONS,
        )
