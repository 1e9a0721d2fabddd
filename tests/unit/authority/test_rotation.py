"""A new issuing authority: only the root's, and whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from controller.authority import rotation
from controller.authority.authority import Authority, load_authority, load_certificate, load_key
from controller.authority.certificates import Issuer, certify_operator, make_issuing, make_root
from controller.authority.init import Initialised, initialise
from controller.authority.keys import new_key, new_serial
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def made(tmp_path: Path) -> Initialised:
    return initialise(tmp_path / "home", names=["127.0.0.1"], now=NOW)


def root_of(made: Initialised) -> Issuer:
    return Issuer(load_certificate(made.root.certificate), load_key(made.root.key))


def signed(made: Initialised, *, root: Issuer | None = None, now: datetime = NOW) -> bytes:
    key = load_der_public_key(rotation.prepare(made.controller))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    certificate = make_issuing(root or root_of(made), key, serial=new_serial(), now=now)
    return certificate.public_bytes(Encoding.DER)


def install(made: Initialised, der: bytes) -> Issuer:
    before = load_authority(made.controller, NOW)
    return rotation.install(
        made.controller, der, root=before.root, believed=before.believed, now=NOW
    )


def test_the_new_authority_certifies_and_those_before_it_are_believed(made: Initialised) -> None:
    seen = [load_authority(made.controller, NOW).issuing.certificate]
    for _ in range(2):
        seen.insert(0, install(made, signed(made)).certificate)
        after = load_authority(made.controller, NOW)
        assert after.believed == tuple(seen)
        assert after.issuing.key.public_key() == seen[0].public_key()
    names = {path.name for path in made.controller.path.iterdir()}
    assert not {"issuing.next.key", "issuing.next.pem"} & names


def test_a_key_that_was_prepared_is_prepared_once(made: Initialised) -> None:
    assert rotation.prepare(made.controller) == rotation.prepare(made.controller)


def stranger() -> Issuer:
    key = new_key()
    return Issuer(make_root(key, serial=new_serial(), now=NOW), key)


def operators(made: Initialised) -> bytes:
    """The root signs operators as well, and none of them may let machines in."""
    key = load_der_public_key(rotation.prepare(made.controller))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    ann = OperatorIdentity("ann", Role.ADMIN, None)
    leaf = certify_operator(root_of(made), key, ann, serial=new_serial(), now=NOW)
    return leaf.public_bytes(Encoding.DER)


def of_another_key(made: Initialised) -> bytes:
    rotation.prepare(made.controller)
    other = make_issuing(root_of(made), new_key().public_key(), serial=new_serial(), now=NOW)
    return other.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "der_of",
    [
        lambda made: signed(made, root=stranger()),
        operators,
        of_another_key,
        lambda made: signed(made, now=NOW + timedelta(days=1)),
        lambda made: signed(made, now=NOW - timedelta(days=800)),
        lambda made: signed(made)[:-1],
        lambda made: b"",
    ],
    ids=["another root", "an operator", "another key", "not yet", "ended", "cut", "nothing"],
)
def test_nothing_else_becomes_an_authority(made: Initialised, der_of: object) -> None:
    assert callable(der_of)
    der = der_of(made)
    rotation.prepare(made.controller)
    before = load_authority(made.controller, NOW)
    with pytest.raises(SteadError) as caught:
        install(made, der)
    assert caught.value.code is Code.INVALID
    assert same(load_authority(made.controller, NOW), before)


def test_without_a_prepared_key_there_is_nothing_to_install(made: Initialised) -> None:
    der = signed(made)
    install(made, der)
    with pytest.raises(SteadError) as caught:
        install(made, der)
    assert caught.value.code is Code.PRECONDITION


def same(one: Authority, other: Authority) -> bool:
    return one.believed == other.believed


class CutError(Exception):
    """The controller was killed here."""


@pytest.mark.parametrize("step", range(12))
def test_a_cut_at_any_step_leaves_the_old_authority_or_the_new_one(
    made: Initialised, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    der, old = signed(made), load_authority(made.controller, NOW)
    left = step

    def counted(real: object) -> object:
        def act(*arguments: object, **named: object) -> object:
            nonlocal left
            assert callable(real)
            if left == 0:
                cut()
            left -= 1
            return real(*arguments, **named)

        return act

    def cut() -> NoReturn:
        raise CutError

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        for name in ("open", "fsync", "link"):
            patched.setattr(f"os.{name}", counted(getattr(__import__("os"), name)))
        try:
            install(made, der)
            done = True
        except CutError:
            done = False
    after = load_authority(made.controller, NOW)
    new = x509.load_der_x509_certificate(der)
    assert after.believed in {old.believed, (new, *old.believed)}
    if not done:
        # What was left half done is in nobody's way.
        key = load_der_public_key(rotation.prepare(made.controller))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        again = make_issuing(root_of(made), key, serial=new_serial(), now=NOW)
        install(made, again.public_bytes(Encoding.DER))
        assert old.issuing.certificate in load_authority(made.controller, NOW).former
