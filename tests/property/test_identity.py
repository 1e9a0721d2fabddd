"""Laws of identities: what is not one is told so, in our own words, whatever it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from controller.authority.certificates import (
    Issuer,
    certify_machine,
    certify_operator,
    make_issuing,
    make_root,
)
from protocol.errors import Code, InvalidError
from protocol.identity import (
    SCHEME,
    ControllerIdentity,
    Identity,
    IdentityError,
    MachineIdentity,
    OperatorIdentity,
    Role,
    believe,
    identity_of,
    parse_identity,
    read_certificate,
    renewal_bytes,
)
from protocol.ids import MachineId, TenantId, check_id, make_id

# An edited certificate can have a serial number that no certificate should have.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ids(prefix: str) -> st.SearchStrategy[str]:
    return st.builds(
        lambda at, random: make_id(prefix, at_ms=at, random=random),
        st.integers(0, 2**48 - 1),
        st.binary(min_size=10, max_size=10),
    )


TENANTS = ids("tn").map(TenantId)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
IDENTITIES = st.one_of(
    st.just(ControllerIdentity()),
    st.builds(MachineIdentity, TENANTS, ids("mc").map(MachineId)),
    st.builds(
        OperatorIdentity,
        NAMES,
        st.sampled_from(Role),
        st.none() | st.frozensets(TENANTS, min_size=1, max_size=3),
    ),
)


@given(IDENTITIES)
def test_an_identity_is_read_back_as_it_was_written(identity: Identity) -> None:
    assert parse_identity(identity.uri()) == identity


@given(st.text(max_size=200) | st.text(max_size=200).map(SCHEME.__add__))
@example(SCHEME + "operator/ann/admin/")
@example(SCHEME + "operator/ann/admin/all/")
@example(SCHEME + "operator/ann/Admin/all")
@example(SCHEME + "operator//admin/all")
@example(SCHEME + "operator/ann/admin/all+all")
@example(SCHEME + "controller/")
@example(SCHEME + "Controller")
@example(SCHEME + "tenant//machine/")
def test_any_text_is_an_identity_or_refused(text: str) -> None:
    try:
        identity = parse_identity(text)
    except IdentityError:
        return
    assert isinstance(identity, ControllerIdentity | MachineIdentity | OperatorIdentity)


@given(IDENTITIES, st.data())
def test_no_two_spellings_mean_one_identity(identity: Identity, data: st.DataObject) -> None:
    uri = identity.uri()
    place = data.draw(st.integers(0, len(uri)))
    cut = data.draw(st.integers(0, 3))
    other = uri[:place] + data.draw(st.text(max_size=3)) + uri[place + cut :]
    try:
        found = parse_identity(other)
    except IdentityError:
        return
    # A scope is a set: the order of its tenants alone may differ.
    if found == identity and isinstance(identity, OperatorIdentity) and identity.tenants:
        assert sorted(other.rpartition("/")[2].split("+")) == sorted(identity.tenants)
    elif found == identity:
        assert other == uri


@given(st.sampled_from(["mc", "tn"]), st.text(max_size=40))
def test_any_text_is_an_id_or_refused(prefix: str, text: str) -> None:
    try:
        found = check_id(prefix, text)
    except InvalidError:
        return
    assert found == text


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


ROOT_KEY, ISSUING_KEY = key(), key()
ROOT = Issuer(make_root(ROOT_KEY, serial=1 << 70, now=NOW), ROOT_KEY)
ISSUING = Issuer(make_issuing(ROOT, ISSUING_KEY.public_key(), serial=1 << 71, now=NOW), ISSUING_KEY)
MACHINE = MachineIdentity(TenantId("tn_" + "0" * 26), MachineId("mc_" + "0" * 26))
OPERATOR = OperatorIdentity("ann", Role.ADMIN, None)
LEAVES = (
    certify_machine(ISSUING, key().public_key(), MACHINE, serial=1 << 72, now=NOW),
    certify_operator(ROOT, key().public_key(), OPERATOR, serial=1 << 73, now=NOW),
)


def held(leaf: x509.Certificate, now: datetime = NOW) -> Identity:
    return believe(leaf, root=ROOT.certificate, issuing=[ISSUING.certificate], now=now)


@given(
    st.sampled_from(LEAVES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_certificate_with_other_bytes_is_never_somebody_else(
    leaf: x509.Certificate, edits: list[tuple[int, int]]
) -> None:
    der = bytearray(leaf.public_bytes(Encoding.DER))
    for place, value in edits:
        der[place % len(der)] = value
    try:
        found = held(read_certificate(bytes(der)))
    except IdentityError:
        return
    assert found == held(leaf)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_certificate(der: bytes) -> None:
    with pytest.raises(IdentityError):
        read_certificate(der)


@pytest.mark.parametrize("leaf", LEAVES)
def test_no_byte_of_a_certificate_can_be_another_one(leaf: x509.Certificate) -> None:
    der = leaf.public_bytes(Encoding.DER)
    for place, byte in enumerate(der):
        for value in {0, 1, 3, 5, 0x0C, 0x30, 0x7F, 0xFF, byte ^ 1, byte ^ 0x20} - {byte}:
            try:
                found = held(read_certificate(der[:place] + bytes([value]) + der[place + 1 :]))
            except IdentityError:
                continue
            assert found == held(leaf)


def held_by(authority: bytes) -> Identity:
    """The machine's certificate, believed by an authority that anybody may have sent."""
    issuing = read_certificate(authority)
    return believe(LEAVES[0], root=ROOT.certificate, issuing=[issuing], now=NOW)


def test_no_byte_of_an_authority_can_be_another_one() -> None:
    der = ISSUING.certificate.public_bytes(Encoding.DER)
    for place, byte in enumerate(der):
        for value in {0, 0x0C, 0x30, 0xFF, byte ^ 1, byte ^ 0x20} - {byte}:
            with pytest.raises(IdentityError):
                held_by(der[:place] + bytes([value]) + der[place + 1 :])


@given(st.sampled_from(LEAVES), st.integers(-(10**9), 10**9))
def test_a_certificate_is_believed_in_its_time_alone(leaf: x509.Certificate, seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    if leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        assert held(leaf, now)
        return
    with pytest.raises(IdentityError) as caught:
        held(leaf, now)
    assert caught.value.code is Code.EXPIRED


def with_names(*names: x509.GeneralName) -> x509.Certificate:
    """A certificate of the issuing authority with any names at all."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ISSUING.certificate.subject)
        .public_key(key().public_key())
        .serial_number(1 << 74)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ISSUING_KEY, SHA256())


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    "names",
    [
        (),
        (x509.DNSName("spiffe://stead/controller"),),
        (URI(MACHINE.uri()), URI("spiffe://stead/controller")),
        (URI(MACHINE.uri()), URI(MACHINE.uri())),
        (URI("https://example.com/"),),
        (URI(MACHINE.uri() + "%00"),),
    ],
)
def test_a_certificate_that_names_nobody_or_several_is_nobodys(
    names: tuple[x509.GeneralName, ...],
) -> None:
    with pytest.raises(IdentityError) as caught:
        held(with_names(*names))
    assert caught.value.code is Code.UNAUTHENTICATED


def test_an_extension_that_cannot_be_read_names_nobody() -> None:
    garbled = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x80garbage")
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ISSUING.certificate.subject)
        .public_key(key().public_key())
        .serial_number(1 << 75)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(garbled, critical=False)
        .sign(ISSUING_KEY, SHA256())
    )
    with pytest.raises(IdentityError):
        identity_of(leaf)
    with pytest.raises(IdentityError):
        held(leaf)


@given(st.binary(max_size=64), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=64), st.data())
def test_what_is_signed_to_renew_tells_every_request_from_every_other(
    one: bytes, at: int, other: bytes, data: st.DataObject
) -> None:
    then = data.draw(st.integers(-(2**63), 2**63 - 1))
    same = (one, at) == (other, then)
    assert (renewal_bytes(one, at) == renewal_bytes(other, then)) == same
