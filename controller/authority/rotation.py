"""Put a new issuing authority in the place of the one that certifies machines now.

The key is made here and never leaves; the root signs a certificate for it wherever the root
is kept. What the former authority certified is believed until it ends, and for renewals as
long after that as any certificate. A cut at any moment leaves the old authority or the new
one: `finish` completes a change that had begun.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.authority.certificates import Issuer
from controller.authority.durable import replace_durably, sync_directory, write_durably
from controller.authority.keys import new_key
from controller.config import ControllerHome
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import IdentityError, extensions_of, read_certificate
from protocol.tls import chain_pem, private_pem


def prepare(home: ControllerHome) -> bytes:
    """The public key of the authority to come, in DER; asked again it is the same one."""
    finish(home)
    if not home.next_issuing_key.exists():
        write_durably(home.next_issuing_key, private_pem(new_key()))
    key = _next_key(home)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def install(
    home: ControllerHome,
    der: bytes,
    *,
    root: x509.Certificate,
    believed: tuple[x509.Certificate, ...],
    now: datetime,
) -> Issuer:
    """Make this certificate's authority the present one; `believed` are those before it.

    PRECONDITION when no key was prepared; INVALID for a certificate that the root did not
    sign, that is for another key, that is no authority's, or that is not in its time.
    """
    if not home.next_issuing_key.exists():
        raise SteadError(
            "no authority was prepared; run `stead controller rotate-authority` again",
            code=Code.PRECONDITION,
        )
    key = _next_key(home)
    certificate = _checked(der, key, root=root, believed=believed, now=now)
    replace_durably(home.former_issuing, chain_pem(believed))
    write_durably(home.next_issuing, chain_pem([certificate]))
    finish(home)
    return Issuer(certificate, key)


def finish(home: ControllerHome) -> None:
    """Complete a change whose certificate was written; otherwise do nothing."""
    if not home.next_issuing.exists():
        return
    if home.next_issuing_key.exists():
        home.next_issuing_key.replace(home.issuing_key)
        sync_directory(home.path)
    home.next_issuing.replace(home.issuing)
    sync_directory(home.path)


def _next_key(home: ControllerHome) -> ec.EllipticCurvePrivateKey:
    from controller.authority.authority import load_key

    return load_key(home.next_issuing_key)


def _checked(
    der: bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    root: x509.Certificate,
    believed: tuple[x509.Certificate, ...],
    now: datetime,
) -> x509.Certificate:
    try:
        certificate = read_certificate(der)
        constraints = extensions_of(certificate).get_extension_for_class(x509.BasicConstraints)
        certificate.verify_directly_issued_by(root)
        ours = certificate.public_key() == key.public_key()
    except (
        InvalidSignature,
        IdentityError,
        x509.ExtensionNotFound,
        ValueError,
        TypeError,
    ) as error:
        raise InvalidError(
            "the root of this installation did not sign this certificate for an authority; name "
            "the right root with --root"
        ) from error
    if not constraints.value.ca or not ours:
        raise InvalidError(
            "this is no certificate for the authority that was prepared; run "
            "`stead controller rotate-authority` again"
        )
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise InvalidError(
            f"the certificate is good from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z, and the controller's clock says "
            f"{now:%Y-%m-%d %H:%M}Z; set the clock that is wrong"
        )
    if certificate.subject in {one.subject for one in believed}:
        raise InvalidError("an authority of this name was here before; run it again")
    return certificate
