"""Who asks by a certificate that may be over: its key signs the request, and the clock fits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import Row

from controller.authority.authority import Authority
from controller.authority.failures import EnrollmentRefusedError
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity, believe, key_hash, public_key_of, read_certificate
from protocol.ids import TenantId

RENEWABLE = timedelta(days=400)
CLOCK_TOLERANCE = timedelta(minutes=10)
_EPOCH_LIMIT_MS = 1 << 48


@dataclass(frozen=True, slots=True)
class Proven:
    """The machine that a certificate was made for, its key, and since when it is over."""

    identity: MachineIdentity
    key: ec.EllipticCurvePublicKey
    over_since: timedelta

    def check_key(self, machine: Row[Any]) -> None:
        """Raise UNAUTHENTICATED unless this is the very key that the machine enrolled with.

        Who holds an issuing authority's key can certify any key, and does not become a machine.
        """
        if machine.tenant_id != self.identity.tenant or machine.public_key_hash != key_hash(
            self.key
        ):
            raise EnrollmentRefusedError(
                "the certificate is not for this machine's present key; enroll it again with a "
                "new token",
                code=Code.UNAUTHENTICATED,
                tenant=self.identity.tenant,
            )


def prove(
    authority: Authority,
    certificate: bytes,
    requested_at_ms: int,
    signature: bytes,
    signed: bytes,
    now: datetime,
) -> Proven:
    """Who asks. Raises CLOCK_SKEW, BAD_SIGNATURE, UNAUTHENTICATED, and EXPIRED after 400 days.

    An authority that is distrusted counts here: its word is not needed, since the machine is
    known by its key (`Proven.check_key`), and the machines that it certified come back this
    way.
    """
    _check_clock(requested_at_ms, now)
    leaf = read_certificate(certificate)
    over_since = now - leaf.not_valid_after_utc
    # Whether the authority vouched for it is asked for its last moment when that is past.
    then = now if over_since < timedelta() else leaf.not_valid_after_utc - timedelta(seconds=1)
    identity = believe(leaf, root=authority.root, issuing=authority.believed, now=then)
    if not isinstance(identity, MachineIdentity):
        raise SteadError("only machines renew their certificates here", code=Code.UNAUTHENTICATED)
    key = public_key_of(leaf)
    _check_signed(key, signature, signed, identity.tenant)
    _check_age(over_since, identity.tenant)
    return Proven(identity, key, over_since)


def _check_signed(
    key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, tenant: TenantId
) -> None:
    try:
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise EnrollmentRefusedError(
            "the request is not signed by the certificate's key",
            code=Code.BAD_SIGNATURE,
            tenant=tenant,
        ) from None


def _check_age(over_since: timedelta, tenant: TenantId) -> None:
    if over_since > RENEWABLE:
        raise EnrollmentRefusedError(
            f"the certificate ended {over_since.days} days ago, more than {RENEWABLE.days}; "
            "enroll this machine again with a new token",
            code=Code.EXPIRED,
            tenant=tenant,
        )


def _check_clock(requested_at_ms: int, now: datetime) -> None:
    now_ms = int(now.timestamp() * 1000)
    if abs(requested_at_ms - now_ms) <= CLOCK_TOLERANCE.total_seconds() * 1000:
        return
    theirs = "a time beyond all calendars"
    if 0 <= requested_at_ms < _EPOCH_LIMIT_MS:
        moment = datetime(1970, 1, 1, tzinfo=now.tzinfo) + timedelta(milliseconds=requested_at_ms)
        theirs = f"{moment:%Y-%m-%d %H:%M:%S}Z"
    raise EnrollmentRefusedError(
        f"this machine's clock says {theirs} and the controller's {now:%Y-%m-%d %H:%M:%S}Z; set "
        "the one that is wrong",
        code=Code.CLOCK_SKEW,
    )
