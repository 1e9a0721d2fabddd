"""Have the root sign a new issuing authority, for a controller that runs or one that does not."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from controller.authority import rotation
from controller.authority.authority import load_certificates, read_authority
from controller.authority.certificates import Issuer, make_issuing
from controller.authority.change import note_rotation
from controller.authority.durable import replace_durably
from controller.authority.keys import new_serial
from controller.cli.operator.connection import Connection
from controller.config import ControllerHome, RootHome
from controller.db.database import Database
from protocol.errors import Code, InvalidError, SteadError
from protocol.tls import chain_pem
from protocol.v1.operator_pb2 import InstallAuthorityRequest, PrepareAuthorityRequest


def rotate_running(
    connection: Connection, root: Issuer, kept: RootHome, now: datetime
) -> x509.Certificate:
    """Change the authority of the controller that this profile connects to.

    `kept` is the root's directory, which notes what the root has signed before anybody has it.
    """
    prepared = connection.controllers.PrepareAuthority(PrepareAuthorityRequest())
    certificate = _signed(root, kept, prepared.public_key, now)
    request = InstallAuthorityRequest(certificate=certificate.public_bytes(Encoding.DER))
    connection.controllers.InstallAuthority(request)
    return certificate


def rotate_here(
    home: ControllerHome, root: Issuer, kept: RootHome, now: datetime
) -> x509.Certificate:
    """Change the files of a controller that does not run; LOCKED when it does."""
    database = Database.open(home.database_url(home.load_settings()))
    try:
        authority = read_authority(home)
        if authority.root != root.certificate:
            raise SteadError(
                f"the controller in {home.path} has another root; name the right one with --root",
                code=Code.WRONG_PIN,
            )
        certificate = _signed(root, kept, rotation.prepare(home), now)
        rotation.install(
            home,
            certificate.public_bytes(Encoding.DER),
            root=authority.root,
            believed=authority.believed,
            now=now,
        )
        database.write_now(lambda c: note_rotation(c, certificate, "controller", now))
    finally:
        database.close_now()
    return certificate


def signed_before(kept: RootHome) -> list[x509.Certificate]:
    """The authorities that the root's directory knows of, the newest first."""
    if not kept.authorities.exists():
        return []
    return list(reversed(load_certificates(kept.authorities)))


def _signed(root: Issuer, kept: RootHome, public_key: bytes, now: datetime) -> x509.Certificate:
    try:
        key = load_der_public_key(public_key)
    except ValueError as error:
        raise InvalidError("the controller's new key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError("the controller's new key is not a P-256 key")
    made = make_issuing(root, key, serial=new_serial(), now=now)
    replace_durably(kept.authorities, chain_pem([*reversed(signed_before(kept)), made]))
    return made
