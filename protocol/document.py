"""What the root signs beside certificates: documents whose version only grows.

Pure. Each kind of document has a fixed word of its own under the signature, so that none
can be taken for another. Whoever carries one can keep it back, and can neither make one
nor bring an old one back.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.errors import Code, InvalidError, SteadError


class Versioned(Protocol):
    """A document. Version 0 is none."""

    @property
    def version(self) -> int:
        """Counts the documents of this kind from 1."""


D = TypeVar("D", bound=Versioned)


def document_bytes(domain: bytes, data: bytes) -> bytes:
    """What the root signs: the kind's fixed word, then SHA-256 of the document's bytes."""
    return domain + hashlib.sha256(data).digest()


def signature_over(domain: bytes, data: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The root's signature over a document's bytes, in DER."""
    return key.sign(document_bytes(domain, data), ec.ECDSA(SHA256()))


def check_document(
    domain: bytes, data: bytes, signature: bytes, root: x509.Certificate, *, what: str
) -> None:
    """Raise BAD_SIGNATURE unless this root signed these very bytes as this kind of document.

    `what` is what people call it: "the list of revoked operators".
    """
    key = root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidError("the root's key is none that signs documents")
    try:
        key.verify(signature, document_bytes(domain, data), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SteadError(
            f"{what} is not signed by this installation's root", code=Code.BAD_SIGNATURE
        ) from None


def is_newer(present: D, offered: D, *, what: str) -> bool:
    """True when an offered document is to be taken, false when it is the present one.

    Raises REPLAYED for a lower version, and for another document of the same version.
    """
    if offered.version > present.version:
        return True
    if offered == present:
        return False
    raise SteadError(
        f"{what} of version {offered.version} came after version {present.version} and is not "
        "taken",
        code=Code.REPLAYED,
    )
