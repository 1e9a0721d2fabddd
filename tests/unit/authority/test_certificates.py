"""Each kind of certificate has the fields that it is to have, and no others."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from controller.authority.authority import Authority, ServingCertificate
from controller.authority.certificates import (
    BACKDATED,
    MACHINE_LIFETIME,
    Issuer,
    certify_machine,
    certify_operator,
    certify_server,
    general_name,
    make_issuing,
    make_root,
)
from controller.authority.keys import new_key, new_serial
from protocol.errors import Code, SteadError
from protocol.identity import (
    ControllerIdentity,
    IdentityError,
    MachineIdentity,
    OperatorIdentity,
    Role,
    believe,
    identity_of,
)
from protocol.ids import MachineId, TenantId
from protocol.tls import ROOT_EXTENSION

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = new_key()
ROOT = Issuer(make_root(KEY, serial=new_serial(), now=NOW), KEY)
ISSUING_KEY = new_key()
ISSUING = Issuer(
    make_issuing(ROOT, ISSUING_KEY.public_key(), serial=new_serial(), now=NOW), ISSUING_KEY
)
MACHINE = MachineIdentity(TenantId("tn_" + "0" * 26), MachineId("mc_" + "0" * 26))
OPERATOR = OperatorIdentity("ann", Role.TECHNICIAN, frozenset({MACHINE.tenant}))


def public() -> ec.EllipticCurvePublicKey:
    return new_key().public_key()


def machine(**values: object) -> x509.Certificate:
    arguments = {"serial": new_serial(), "now": NOW, **values}
    return certify_machine(ISSUING, public(), MACHINE, **arguments)  # type: ignore[arg-type]


def operator(issuer: Issuer = ROOT) -> x509.Certificate:
    return certify_operator(issuer, public(), OPERATOR, serial=new_serial(), now=NOW)


def server(*names: str) -> x509.Certificate:
    return certify_server(
        ISSUING, public(), names, root=ROOT.certificate, serial=new_serial(), now=NOW
    )


def constraints(certificate: x509.Certificate) -> tuple[bool, int | None, bool]:
    found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    return found.value.ca, found.value.path_length, found.critical


def test_authorities_may_sign_and_nothing_else() -> None:
    assert constraints(ROOT.certificate) == (True, 1, True)
    assert constraints(ISSUING.certificate) == (True, 0, True)
    for certificate in (ROOT.certificate, ISSUING.certificate):
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert not usage.value.digital_signature


def test_leaves_may_sign_no_certificate() -> None:
    for leaf in (machine(), operator(), server("localhost")):
        assert constraints(leaf) == (False, None, True)
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature
        assert not usage.value.key_cert_sign


def test_a_leaf_is_a_client_or_a_server_and_never_both() -> None:
    uses = {
        leaf: list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        for leaf in (machine(), operator(), server("localhost"))
    }
    assert list(uses.values()) == [
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.SERVER_AUTH],
    ]


def test_a_machine_has_its_uri_and_no_dns_name() -> None:
    leaf = machine()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(MACHINE.uri())]
    common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [attribute.value for attribute in common] == [MACHINE.machine]


def test_the_controllers_certificate_names_its_hosts_and_carries_the_root() -> None:
    leaf = server("stead.example.com", "10.0.0.1", "::1")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["stead.example.com"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert identity_of(leaf) == ControllerIdentity()
    carried = leaf.extensions.get_extension_for_oid(ROOT_EXTENSION).value
    assert isinstance(carried, x509.UnrecognizedExtension)
    assert carried.value == ROOT.certificate.public_bytes(Encoding.DER)


def test_certificates_begin_a_little_early_for_slow_clocks() -> None:
    for leaf in (ROOT.certificate, ISSUING.certificate, machine(), operator(), server("a")):
        assert leaf.not_valid_before_utc == NOW - BACKDATED
    assert machine().not_valid_after_utc == NOW + MACHINE_LIFETIME


def test_a_leaf_never_outlives_its_issuer() -> None:
    late = ISSUING.certificate.not_valid_after_utc - timedelta(days=1)
    assert machine(now=late).not_valid_after_utc == ISSUING.certificate.not_valid_after_utc


def test_another_verifier_takes_the_chain_of_a_server() -> None:
    verifier = (
        PolicyBuilder()
        .store(Store([ROOT.certificate]))
        .time(NOW)
        .build_server_verifier(x509.DNSName("stead.example.com"))
    )
    leaf = server("stead.example.com")
    chain = verifier.verify(leaf, [ISSUING.certificate])
    assert chain == [leaf, ISSUING.certificate, ROOT.certificate]


def test_the_right_authority_is_believed_and_the_wrong_one_is_not() -> None:
    def held(leaf: x509.Certificate) -> object:
        return believe(leaf, root=ROOT.certificate, issuing=[ISSUING.certificate], now=NOW)

    assert held(machine()) == MACHINE
    assert held(operator()) == OPERATOR
    assert held(server("localhost")) == ControllerIdentity()
    rooted = certify_machine(ROOT, public(), MACHINE, serial=new_serial(), now=NOW)
    for forged in (operator(ISSUING), rooted, ISSUING.certificate, ROOT.certificate):
        with pytest.raises(IdentityError) as caught:
            held(forged)
        assert caught.value.code is Code.UNAUTHENTICATED


def test_what_the_root_signed_for_a_person_lets_no_machine_in() -> None:
    """A chain may come from whoever shows it: each link must be an authority's."""
    key = new_key()
    leaf = certify_operator(ROOT, key.public_key(), OPERATOR, serial=new_serial(), now=NOW)
    forged = certify_machine(Issuer(leaf, key), public(), MACHINE, serial=new_serial(), now=NOW)
    with pytest.raises(IdentityError) as caught:
        believe(forged, root=ROOT.certificate, issuing=[leaf], now=NOW)
    assert caught.value.code is Code.UNAUTHENTICATED


def test_two_issuing_authorities_of_one_root_have_different_names() -> None:
    other = make_issuing(ROOT, public(), serial=new_serial(), now=NOW)
    assert other.subject != ISSUING.certificate.subject


@pytest.mark.parametrize("name", ["", "a b", "a..b", "-a", "a-", "a" * 64, "é", "*.a", "a:1"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(SteadError) as caught:
        general_name(name)
    assert caught.value.code is Code.INVALID


def test_the_serving_certificate_is_made_anew_in_time_and_not_before() -> None:
    serving = ServingCertificate(Authority(ROOT.certificate, ISSUING), ["localhost"])
    first = serving.current(NOW)
    assert serving.current(NOW + timedelta(days=19)) == first
    key, (leaf, issuing) = serving.current(NOW + timedelta(days=21))
    assert leaf != first[1][0]
    assert key.public_key() == leaf.public_key() != first[0].public_key()
    assert issuing == ISSUING.certificate
    assert leaf.not_valid_after_utc > NOW + timedelta(days=50)


def test_a_clock_set_back_gets_a_certificate_of_its_own_time() -> None:
    serving = ServingCertificate(Authority(ROOT.certificate, ISSUING), ["localhost"])
    serving.current(NOW + timedelta(days=300))
    _, chain = serving.current(NOW)
    assert chain[0].not_valid_before_utc <= NOW < chain[0].not_valid_after_utc
