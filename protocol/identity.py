"""Who a certificate says somebody is, and whether to believe it.

Pure: certificates and the time come in, an identity comes out. Issuing is
`controller.authority`'s job.

An identity is a SPIFFE-style URI, the only one in a leaf's subject alternative name:

    spiffe://stead/controller
    spiffe://stead/tenant/TENANT/machine/MACHINE
    spiffe://stead/operator/NAME/ROLE/SCOPE      SCOPE: "all", or tenant ids joined by "+"
    spiffe://stead/operator/NAME/ROLE/SCOPE/connect      for connecting alone

Who signed the leaf decides what it can be: operators are signed by the root itself,
machines and the controller by an issuing authority that the root signed. So whoever
holds the issuing key can let machines in and can never make an operator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import Code, SteadError
from protocol.ids import MachineId, TenantId, check_id, check_name

SCHEME = "spiffe://stead/"
CONNECT = "connect"
_INTEGER = 0x02
_LONG = 0x80
"""In a length of DER: the bits below say how many bytes of length follow."""

# What the library raises for hostile bytes, at parsing or when a field is first read.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    IndexError,
)


class IdentityError(SteadError):
    """A certificate that proves nothing here, with the reason."""

    code = Code.UNAUTHENTICATED


class Role(StrEnum):
    """What an operator may do, from most to least."""

    ADMIN = "admin"
    TECHNICIAN = "technician"
    HELPDESK = "helpdesk"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class ControllerIdentity:
    """The controller."""

    def uri(self) -> str:
        """The identity as it stands in a certificate."""
        return f"{SCHEME}controller"


@dataclass(frozen=True, slots=True)
class MachineIdentity:
    """An enrolled machine of one tenant."""

    tenant: TenantId
    machine: MachineId

    def uri(self) -> str:
        """The identity as it stands in a certificate."""
        return f"{SCHEME}tenant/{self.tenant}/machine/{self.machine}"


@dataclass(frozen=True, slots=True)
class OperatorIdentity:
    """A person. `tenants` is None for every tenant.

    `connects_only`: the certificate signs nothing; see `protocol.unlock`.
    """

    name: str
    role: Role
    tenants: frozenset[TenantId] | None
    connects_only: bool = False

    def uri(self) -> str:
        """The identity as it stands in a certificate."""
        scope = "all" if self.tenants is None else "+".join(sorted(self.tenants))
        only = f"/{CONNECT}" if self.connects_only else ""
        return f"{SCHEME}operator/{self.name}/{self.role}/{scope}{only}"

    def whole(self) -> OperatorIdentity:
        """The same person, as their own key proves them."""
        return replace(self, connects_only=False)

    def may_see(self, tenant: TenantId) -> bool:
        """True when the tenant is in the operator's scope."""
        return self.tenants is None or tenant in self.tenants


Identity = ControllerIdentity | MachineIdentity | OperatorIdentity


def parse_identity(uri: str) -> Identity:
    """Read an identity; `IdentityError` when it is none.

    >>> parse_identity("spiffe://stead/operator/ann/helpdesk/all").role
    <Role.HELPDESK: 'helpdesk'>
    """
    if not uri.startswith(SCHEME):
        raise IdentityError(f"{uri[:120]!r} is not an identity of this system")
    try:
        match uri.removeprefix(SCHEME).split("/"):
            case ["controller"]:
                return ControllerIdentity()
            case ["tenant", tenant, "machine", machine]:
                return MachineIdentity(
                    TenantId(check_id("tn", tenant)), MachineId(check_id("mc", machine))
                )
            case ["operator", name, role, scope, *only] if only in ([], [CONNECT]):
                tenants = None
                if scope != "all":
                    tenants = frozenset(TenantId(check_id("tn", t)) for t in scope.split("+"))
                return OperatorIdentity(check_name(name), Role(role), tenants, bool(only))
    except (ValueError, SteadError) as error:
        raise IdentityError(f"{uri[:120]!r} is not an identity: {error}") from error
    raise IdentityError(f"{uri[:120]!r} is not an identity of this system")


def read_certificate(der: bytes) -> x509.Certificate:
    """Read a certificate that anybody may have sent; `IdentityError` when it is none.

    Its bytes are taken in one form alone: the reader of certificates lets a signature pass
    that says of its last bits that they are none, where these are zero.
    """
    try:
        if not _has_number(der):
            raise IdentityError("the certificate has no serial number")
        found = x509.load_der_x509_certificate(der)
        unused_bits = der[-len(found.signature) - 1]
        # Read here for all who ask later: there is a year 0 in DER and none in a datetime.
        _ = found.not_valid_before_utc, found.not_valid_after_utc
    except _UNREADABLE as error:
        raise IdentityError("the certificate cannot be read") from error
    if unused_bits:
        raise IdentityError("the certificate's signature is no whole number of bytes")
    return found


def _has_number(der: bytes) -> bool:
    """Whether the serial number is above zero, as it has to be.

    Looked at before the reader of certificates does: of any other it warns, on the standard
    error of whoever reads, and takes it.
    """
    _, whole, _ = _element(der, 0)
    _, signed, _ = _element(der, whole)
    _, _, version_end = _element(der, signed)
    tag, begin, end = _element(der, version_end)
    return tag == _INTEGER and int.from_bytes(der[begin:end], signed=True) > 0


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element of DER that is there, and where its content begins and ends."""
    length, begin = der[at + 1], at + 2
    if length & _LONG:
        begin += length & ~_LONG
        length = int.from_bytes(der[at + 2 : begin])
    return der[at], begin, begin + length


def identity_of(leaf: x509.Certificate) -> Identity:
    """What the leaf claims to be, believed or not."""
    try:
        names = extensions_of(leaf).get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate names nobody") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError(f"the certificate names {len(uris)} identities instead of one")
    return parse_identity(uris[0])


def believe(
    leaf: x509.Certificate,
    *,
    root: x509.Certificate,
    issuing: Sequence[x509.Certificate],
    now: datetime,
    connecting: bool = False,
    distrusted: Collection[bytes] = (),
) -> Identity:
    """Return the leaf's identity when the right authority vouches for it now.

    A certificate for connecting alone is believed only where `connecting` says so. No
    issuing authority whose key is in `distrusted` (`key_hash`) vouches for anybody.
    Raises `IdentityError` with code EXPIRED for a leaf outside its time, DISTRUSTED for one
    of such an authority, and with code UNAUTHENTICATED for everything else.
    """
    identity = identity_of(leaf)
    _check_leaf(leaf, now)
    if isinstance(identity, OperatorIdentity):
        _check_issuer(leaf, root, "operators are signed by the root alone")
        if identity.connects_only and not connecting:
            raise IdentityError("this certificate is for connecting alone and signs nothing")
        return identity
    authority = authority_of(leaf, issuing)
    believe_authority(authority, root=root, now=now, distrusted=distrusted)
    _check_issuer(leaf, authority, "not signed by the issuing authority it names")
    return identity


def authority_of(leaf: x509.Certificate, issuing: Sequence[x509.Certificate]) -> x509.Certificate:
    """The one of these that a leaf names as its issuer; `IdentityError` when it is none."""
    issuer = _name_in(leaf, "issuer")
    for authority in issuing:
        if _name_in(authority, "subject") == issuer:
            return authority
    raise IdentityError("the certificate was signed by an authority that is not known here")


def believe_authority(
    authority: x509.Certificate,
    *,
    root: x509.Certificate,
    now: datetime,
    distrusted: Collection[bytes] = (),
) -> None:
    """Raise `IdentityError` unless this is an issuing authority of the root, now."""
    _check_issuer(authority, root, "the issuing authority is not this root's")
    _check_authority(authority)
    _check_time(authority, now, "issuing authority")
    if distrusted and key_hash(public_key_of(authority)) in distrusted:
        raise IdentityError(
            "the root says that the issuing authority behind this is not to be believed any more",
            code=Code.DISTRUSTED,
        )


def _name_in(certificate: x509.Certificate, which: Literal["issuer", "subject"]) -> x509.Name:
    # Like extensions, they are parsed when they are asked for, not with the certificate.
    try:
        return certificate.issuer if which == "issuer" else certificate.subject
    except _UNREADABLE as error:
        raise IdentityError(f"the certificate's {which} cannot be read") from error


def public_key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The key in a certificate that anybody may have sent; `IdentityError` for no such key."""
    try:
        key = certificate.public_key()
    except _UNREADABLE as error:
        raise IdentityError("the certificate's key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError("the certificate's key is of a kind that is not used here")
    return key


def extensions_of(leaf: x509.Certificate) -> x509.Extensions:
    """The extensions of a certificate that anybody may have sent; `IdentityError`."""
    try:
        return leaf.extensions
    except _UNREADABLE as error:
        raise IdentityError("the certificate's extensions cannot be read") from error


def _check_leaf(leaf: x509.Certificate, now: datetime) -> None:
    _check_time(leaf, now, "certificate")
    try:
        if extensions_of(leaf).get_extension_for_class(x509.BasicConstraints).value.ca:
            raise IdentityError("an authority's certificate was shown as somebody's own")
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate does not say that it is a leaf") from None


def _check_authority(issuer: x509.Certificate) -> None:
    """The root signs operators too, and none of them may let machines in."""
    try:
        constraints = extensions_of(issuer).get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise IdentityError("the issuer does not say that it is an authority") from None
    if not constraints.ca:
        raise IdentityError("the issuer is no authority: it may not sign certificates")


def _check_time(certificate: x509.Certificate, now: datetime, what: str) -> None:
    if now >= certificate.not_valid_after_utc:
        raise IdentityError(
            f"the {what} ended at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z",
            code=Code.EXPIRED,
        )
    if now < certificate.not_valid_before_utc:
        raise IdentityError(
            f"the {what} begins at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z; "
            "is the clock right?",
            code=Code.EXPIRED,
        )


def _check_issuer(child: x509.Certificate, parent: x509.Certificate, message: str) -> None:
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise IdentityError(message) from error


def pin_of(root: x509.Certificate) -> bytes:
    """What an enrollment token remembers of the root: SHA-256 of its DER, 32 bytes."""
    return hashlib.sha256(root.public_bytes(Encoding.DER)).digest()


def key_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of a public key's DER, 32 bytes: what says that two keys are the same."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def made_at(leaf: x509.Certificate) -> tuple[datetime, datetime]:
    """Which of an operator's certificates is the newer; their times are in whole seconds."""
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def renewal_bytes(certificate: bytes, requested_at_ms: int) -> bytes:
    """What a machine signs to renew: a fixed word, the certificate's hash, the time."""
    digest = hashlib.sha256(certificate).digest()
    return b"stead renewal v1\0" + digest + requested_at_ms.to_bytes(8, "big", signed=True)


def rekey_bytes(certificate: bytes, signing_request: bytes, requested_at_ms: int) -> bytes:
    """What a clone signs to become a machine of its own, by the key that it shares."""
    digest = hashlib.sha256(certificate).digest() + hashlib.sha256(signing_request).digest()
    return b"stead rekey v1\0" + digest + requested_at_ms.to_bytes(8, "big", signed=True)
