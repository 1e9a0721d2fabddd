"""Certificates of operators, at their end: noticed in time, and made anew with the root's key.

No controller is needed for it: a certificate that the root signed is believed wherever the
root is, see `protocol.identity`. The key stays, so that a stolen copy of it is renewed as
well; who lost a key is revoked, and added under another name.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.authority import load_certificate
from controller.authority.certificates import OPERATOR_LIFETIME, Issuer, certify_operator
from controller.authority.durable import sync_directory, write_durably
from controller.authority.keys import new_serial
from controller.cli.operator.passphrase import Whose, load_own_key
from controller.config import OperatorHome, RootHome
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import IdentityError, OperatorIdentity, believe
from protocol.tls import chain_pem

WARN_BEFORE = timedelta(days=30)
NEXT_STEP = "`stead operator renew --root DIRECTORY` makes a new one with the root's key"


def ends_soon(certificate: x509.Certificate, now: datetime) -> str:
    """What to say of one's own certificate in its last days; empty before them."""
    end = certificate.not_valid_after_utc
    if now < end - WARN_BEFORE:
        return ""
    return f"your certificate ends on {end:%Y-%m-%d}: {NEXT_STEP}"


def ended_error(certificate: x509.Certificate, now: datetime) -> SteadError | None:
    """The error that one's own certificate has ended; None while it has not."""
    end = certificate.not_valid_after_utc
    if now < end:
        return None
    return SteadError(
        f"your certificate ended at {end:%Y-%m-%d %H:%M}Z, and the clock here says "
        f"{now:%Y-%m-%d %H:%M}Z: {NEXT_STEP}",
        code=Code.UNAUTHENTICATED,
    )


def renew(
    profile: OperatorHome,
    root: RootHome,
    name: str = "",
    *,
    now: datetime,
    lifetime: timedelta = OPERATOR_LIFETIME,
) -> x509.Certificate:
    """Put a new certificate for the same key, name, role and tenants into a profile.

    `name` says whose the profile ought to be. Raises PRECONDITION when the root's key is
    not there, WRONG_PIN when it is another installation's, UNAUTHENTICATED when the
    present certificate is not the root's, and INVALID when files do not belong together.
    """
    issuer = load_root(root, now)
    if load_certificate(profile.root) != issuer.certificate:
        raise SteadError(
            f"the root in {root.path} belongs to another installation than the profile in "
            f"{profile.path}; name the right one with --root",
            code=Code.WRONG_PIN,
        )
    present = load_certificate(profile.certificate)
    identity = _identity(present, issuer.certificate, profile.certificate)
    if name and name != identity.name:
        raise InvalidError(
            f"the profile in {profile.path} is {identity.name}'s, not {name[:80]}'s; name the "
            "directory that holds the other with --home"
        )
    shown = present
    if profile.held_by_agent:
        # The operator's own key is not asked: that the root certified it before is enough.
        shown = load_certificate(profile.connect_certificate)
        only = _identity(shown, issuer.certificate, profile.connect_certificate, connecting=True)
        if only.whole() != identity:
            raise InvalidError(f"{profile.connect_certificate} is another operator's")
    if load_own_key(profile.key_here, Whose.OPERATOR).public_key() != shown.public_key():
        raise InvalidError(
            f"{profile.key_here} is not the key of its certificate; restore both from one copy"
        )

    def again(leaf: x509.Certificate, who: OperatorIdentity) -> x509.Certificate:
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return certify_operator(issuer, key, who, serial=new_serial(), now=now, lifetime=lifetime)

    if profile.held_by_agent:
        other = again(shown, replace(identity, connects_only=True))
        _replace(profile.connect_certificate, chain_pem([other]))
    renewed = again(present, identity)
    _replace(profile.certificate, chain_pem([renewed]))
    return renewed


def load_root(home: RootHome, now: datetime) -> Issuer:
    """The root with its key; PRECONDITION when it was moved away."""
    if not home.key.exists():
        raise SteadError(
            f"this needs the root's key, and {home.key} is not there; bring it back for the "
            "moment, or name its directory with --root",
            code=Code.PRECONDITION,
        )
    issuer = Issuer(load_certificate(home.certificate), load_own_key(home.key, Whose.ROOT))
    if issuer.key.public_key() != issuer.certificate.public_key():
        raise InvalidError(
            f"{home.key} is not the key of {home.certificate}; restore both from one copy"
        )
    end = issuer.certificate.not_valid_after_utc
    if now >= end:
        raise SteadError(
            f"{home.certificate} ended at {end:%Y-%m-%d}, so nothing that it signs is believed; "
            "look at the clock here",
            code=Code.EXPIRED,
        )
    return issuer


def _identity(
    present: x509.Certificate, root: x509.Certificate, path: Path, *, connecting: bool = False
) -> OperatorIdentity:
    try:
        # As of its own beginning: one that has ended is renewed as well.
        begun = present.not_valid_before_utc
        found = believe(present, root=root, issuing=(), now=begun, connecting=connecting)
    except IdentityError as error:
        raise IdentityError(
            f"{path} is not renewed: {error}; have an administrator make a profile with "
            "`stead operator add`"
        ) from error
    if not isinstance(found, OperatorIdentity):
        raise IdentityError(f"{path} is not an operator's certificate")
    return found


def _replace(path: Path, data: bytes) -> None:
    """Have the new file under its name, or the old one, whatever happens meanwhile."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    write_durably(fresh, data)
    fresh.replace(path)
    sync_directory(path.parent)
