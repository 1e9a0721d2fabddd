"""Make certificates: which fields each kind has, and who signs it.

Pure: keys, serial numbers and the time come in, a certificate comes out. What a
certificate proves is said in `protocol.identity`; profiles follow RFC 5280.

    root ── issuing authority ── machines, the controller's servers
      └──── operators
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import InvalidError
from protocol.identity import ControllerIdentity, MachineIdentity, OperatorIdentity
from protocol.tls import AUTHORITY_EXTENSION, ROOT_EXTENSION

BACKDATED = timedelta(minutes=5)
"""Certificates begin a little before they are made, for clocks that are slow."""

ROOT_LIFETIME = timedelta(days=20 * 365)
ISSUING_LIFETIME = timedelta(days=2 * 365)
OPERATOR_LIFETIME = timedelta(days=365)
MACHINE_LIFETIME = timedelta(days=14)
SERVER_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True, repr=False)
class Issuer:
    """A certificate that may sign others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_root(key: ec.EllipticCurvePrivateKey, *, serial: int, now: datetime) -> x509.Certificate:
    """The installation's root, signed by itself, good for 20 years."""
    name = _name(f"Stead root {_short(serial)}")
    builder = _begin(name, name, key.public_key(), serial, now, now + ROOT_LIFETIME)
    return _authority(builder, path_length=1).sign(key, SHA256())


def make_issuing(
    root: Issuer, public_key: ec.EllipticCurvePublicKey, *, serial: int, now: datetime
) -> x509.Certificate:
    """The authority that a controller certifies machines and itself with, for 2 years.

    Its name has its serial number in it: a leaf finds its issuer by name.
    """
    name = _name(f"Stead issuing authority {_short(serial)}")
    builder = _issued(root, name, public_key, serial, now, ISSUING_LIFETIME)
    return _authority(builder, path_length=0).sign(root.key, SHA256())


def certify_machine(
    issuing: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    identity: MachineIdentity,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta = MACHINE_LIFETIME,
) -> x509.Certificate:
    """A machine's certificate: it can call the controller and can never be a server."""
    builder = _issued(issuing, _name(identity.machine), public_key, serial, now, lifetime)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri())]
    return _leaf(builder, names, ExtendedKeyUsageOID.CLIENT_AUTH).sign(issuing.key, SHA256())


def certify_operator(
    root: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    identity: OperatorIdentity,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta = OPERATOR_LIFETIME,
) -> x509.Certificate:
    """An operator's certificate, signed by the root itself: nobody else can make one."""
    builder = _issued(root, _name(identity.name), public_key, serial, now, lifetime)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri())]
    return _leaf(builder, names, ExtendedKeyUsageOID.CLIENT_AUTH).sign(root.key, SHA256())


def certify_server(
    issuing: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    root: x509.Certificate,
    serial: int,
    now: datetime,
    lifetime: timedelta = SERVER_LIFETIME,
) -> x509.Certificate:
    """The controller's own certificate for these DNS names and IP addresses.

    It carries the root for machines that know no more of it than its hash, and its issuer
    for those that do not believe every authority of the root: see `protocol.tls`.
    """
    builder = _issued(issuing, _name("Stead controller"), public_key, serial, now, lifetime)
    carried = {ROOT_EXTENSION: root, AUTHORITY_EXTENSION: issuing.certificate}
    for extension, certificate in carried.items():
        value = certificate.public_bytes(Encoding.DER)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(extension, value), critical=False
        )
    alternatives = [general_name(name) for name in names]
    alternatives.append(x509.UniformResourceIdentifier(ControllerIdentity().uri()))
    return _leaf(builder, alternatives, ExtendedKeyUsageOID.SERVER_AUTH).sign(issuing.key, SHA256())


def general_name(name: str) -> x509.GeneralName:
    """A host's name or IP address as a certificate has it; INVALID when it is neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.split(".")
    if len(name) > 253 or not all(_is_label(label) for label in labels):
        raise InvalidError(f"{name[:80]!r} is neither a DNS name nor an IP address")
    return x509.DNSName(name)


def _is_label(label: str) -> bool:
    plain = label.replace("-", "").replace("_", "")
    return (
        0 < len(label) < 64
        and plain.isascii()
        and plain.isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _short(serial: int) -> str:
    return f"{serial:040x}"[-12:]


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issued(
    issuer: Issuer,
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    # Never longer than the issuer, so that a leaf in its time has a chain in its time.
    not_after = min(now + lifetime, issuer.certificate.not_valid_after_utc)
    subject_key = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return _begin(
        subject, issuer.certificate.subject, public_key, serial, now, not_after
    ).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key.value),
        critical=False,
    )


def _authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(_usage(signs_certificates=True), critical=True)


def _leaf(
    builder: x509.CertificateBuilder, names: Sequence[x509.GeneralName], use: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
