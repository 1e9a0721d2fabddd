"""Between whom recovery keys are handed over: people whom the root made, and revoked nowhere.

The controller passes on what is shared and says who is an operator. It is believed neither
that nor that somebody is in good standing: a key from whom it chose would open what is
backed up under it from then on.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controller import clock
from controller.cli.operator.connection import Connection
from controller.cli.operator.revoking import newest_list, read_of
from protocol.errors import Code, DeniedError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, believe, key_hash, read_certificate
from protocol.ids import TenantId
from protocol.order import MAY_CHANGE_KEYS, Signer
from protocol.revocation import check_not_revoked
from protocol.v1.operator_pb2 import ListOperatorsRequest


def recipient_of(connection: Connection, name: str, tenant: TenantId) -> x509.Certificate:
    """The certificate of an operator who may see the tenant, as the root signed it.

    Raises NOT_FOUND, BAD_SIGNATURE for somebody else's, WRONG_TENANT, and REVOKED also where
    the root's list alone says so.
    """
    known = connection.operators.ListOperators(ListOperatorsRequest()).operators
    found = next((o for o in known if o.name == name and not o.revoked_at_ms), None)
    if found is None:
        raise NotFoundError(f"there is no operator {name!r}; `stead operator ls` lists them")
    certificate, identity = _believed(connection, found.certificate, tenant)
    if identity.name != name:
        raise SteadError(
            f"the controller shows a certificate for {name} that is not theirs; nothing was sealed",
            code=Code.BAD_SIGNATURE,
        )
    return certificate


def sender_of(
    connection: Connection, der: bytes, tenant: TenantId
) -> tuple[x509.Certificate, OperatorIdentity]:
    """Who handed keys over; raises as `recipient_of`, and DENIED for who is no administrator."""
    certificate, identity = _believed(connection, der, tenant)
    if identity.role not in MAY_CHANGE_KEYS:
        raise DeniedError(f"{identity.name} is {identity.role} and shares no recovery keys")
    return certificate, identity


def _believed(
    connection: Connection, der: bytes, tenant: TenantId
) -> tuple[x509.Certificate, OperatorIdentity]:
    certificate = read_certificate(der)
    identity = believe(certificate, root=connection.root, issuing=(), now=clock.now())
    key = certificate.public_key()
    if not isinstance(identity, OperatorIdentity) or not isinstance(key, ec.EllipticCurvePublicKey):
        raise SteadError("this is no operator's certificate", code=Code.BAD_SIGNATURE)
    if not identity.may_see(tenant):
        raise SteadError(f"{identity.name} may not see this tenant", code=Code.WRONG_TENANT)
    revoked = read_of(newest_list(connection), connection.root)
    check_not_revoked(revoked, Signer(identity, key_hash(key)))
    return certificate, identity
