"""The authority that a running controller works with: its root, its issuer, its own certificate."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from controller.authority.certificates import Issuer, certify_machine, certify_server
from controller.authority.keys import new_key, new_serial
from controller.authority.rotation import finish
from controller.config import ControllerHome
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import MachineIdentity, key_hash, public_key_of

ENDS_SOON = timedelta(days=60)


@dataclass(slots=True)
class Authority:
    """Who may be let in, and by whom. The root's key is not here: the operator keeps it.

    `issuing` changes when the authority is rotated; read it each time.
    """

    root: x509.Certificate
    issuing: Issuer
    former: tuple[x509.Certificate, ...] = ()
    """Authorities before this one, whose certificates are still believed until they end."""

    @property
    def believed(self) -> tuple[x509.Certificate, ...]:
        """All that may have certified a machine, the present one first."""
        return (self.issuing.certificate, *self.former)

    def rotate(self, issuing: Issuer) -> None:
        """Certify with another authority from now on."""
        self.former = self.believed
        self.issuing = issuing

    def is_among(self, distrusted: Collection[bytes]) -> bool:
        """Whether the present authority is one of these, by the hash of its key."""
        return key_hash(public_key_of(self.issuing.certificate)) in distrusted

    def check_trusted(self, distrusted: Collection[bytes]) -> None:
        """Raise DISTRUSTED when nobody would believe what is certified here."""
        if self.is_among(distrusted):
            raise SteadError(
                "the root says that this controller's issuing authority is not to be believed "
                "any more; run `stead controller rotate-authority --here` with the root's key",
                code=Code.DISTRUSTED,
            )

    def certify(
        self, public_key: ec.EllipticCurvePublicKey, identity: MachineIdentity, now: datetime
    ) -> tuple[x509.Certificate, x509.Certificate]:
        """A machine's certificate, then the issuing authority's."""
        issuing = self.issuing
        leaf = certify_machine(issuing, public_key, identity, serial=new_serial(), now=now)
        return leaf, issuing.certificate


def load_authority(home: ControllerHome, now: datetime) -> Authority:
    """Read the authority's files and check that they belong together and are in their time."""
    authority = read_authority(home)
    end = authority.issuing.certificate.not_valid_after_utc
    if now >= end:
        raise SteadError(
            f"{home.issuing} ended at {end:%Y-%m-%d}; check this machine's clock, then run "
            "`stead controller rotate-authority --here` with the root's key",
            code=Code.EXPIRED,
        )
    return authority


def read_authority(home: ControllerHome) -> Authority:
    """Read the authority's files, in their time or not, and check that they belong together."""
    finish(home)
    root = load_certificate(home.root)
    certificate = load_certificate(home.issuing)
    key = load_key(home.issuing_key)
    if key.public_key() != certificate.public_key():
        raise InvalidError(
            f"{home.issuing_key} is not the key of {home.issuing}; restore both from one backup"
        )
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise InvalidError(
            f"{home.issuing} was not signed by {home.root}; restore both from one backup"
        ) from error
    former: tuple[x509.Certificate, ...] = ()
    if home.former_issuing.exists():
        former = tuple(one for one in load_certificates(home.former_issuing) if one != certificate)
    return Authority(root, Issuer(certificate, key), former)


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Read certificates in PEM; the error names the file."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path} cannot be read as certificates: {error}") from error


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate in PEM; the error names the file."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path} cannot be read as a certificate: {error}") from error


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read an unencrypted P-256 key in PEM; the error names the file, never its content."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}") from error
    except TypeError:
        raise InvalidError(
            f"{path} is behind a passphrase, which nobody is asked for here"
        ) from None
    except ValueError:
        raise InvalidError(f"{path} is not an unencrypted private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError(f"{path} is not a P-256 key")
    return key


class ServingCertificate:
    """The controller's own certificate: its key is made here and never written to a disk.

    `current` may be called from any thread; gRPC asks at every handshake.
    """

    def __init__(self, authority: Authority, names: Sequence[str]) -> None:
        self._authority = authority
        self._names = tuple(names)
        self._door = threading.Lock()
        self._made: tuple[ec.EllipticCurvePrivateKey, x509.Certificate, Issuer] | None = None

    def current(
        self, now: datetime
    ) -> tuple[ec.EllipticCurvePrivateKey, tuple[x509.Certificate, x509.Certificate]]:
        """The key and the chain to show, made anew when two thirds of its time are over."""
        with self._door:
            issuing = self._authority.issuing
            if self._made is None or self._made[2] is not issuing or _is_old(self._made[1], now):
                key = new_key()
                leaf = certify_server(
                    issuing,
                    key.public_key(),
                    self._names,
                    root=self._authority.root,
                    serial=new_serial(),
                    now=now,
                )
                self._made = key, leaf, issuing
            key, leaf, issuing = self._made
            return key, (leaf, issuing.certificate)


def _is_old(leaf: x509.Certificate, now: datetime) -> bool:
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    # A clock that was set back makes the present certificate one of the future.
    return now < begin or now >= begin + (end - begin) * 2 / 3
