"""The list of who is not believed, as the command line makes it, keeps it and passes it on.

Whoever signs an order sends along the newest list that was seen with the profile: who
carries orders cannot keep it from the machines that obey them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.certificates import Issuer
from controller.authority.durable import replace_durably
from controller.cli.operator.connection import Connection
from controller.config import RootHome
from protocol.codec import (
    encode_revocations,
    encode_signed_revocations,
    read_revocations,
)
from protocol.errors import Code, SteadError
from protocol.identity import (
    Identity,
    IdentityError,
    OperatorIdentity,
    Role,
    believe,
    key_hash,
    read_certificate,
)
from protocol.revocation import (
    NO_REVOCATIONS,
    Revocations,
    RevokedOperator,
    sign_revocations,
)
from protocol.v1.operator_pb2 import GetRevocationsRequest, Operator


def newest_list(connection: Connection) -> bytes:
    """The newest list that is known here or at the controller; empty when there is none.

    What the controller says is kept when it is newer, and is never believed to be the
    newest. Raises BAD_SIGNATURE for a list that this root did not sign.
    """
    own = _read(connection.home.revocations)
    try:
        offered = connection.operators.GetRevocations(GetRevocationsRequest()).revocations
    except grpc.RpcError as error:
        if connection.explain(error).code is not Code.UNSUPPORTED:
            raise
        offered = b""  # an older release has none
    if _version(offered, connection.root) > _version(own, connection.root):
        replace_durably(connection.home.revocations, offered)
        return offered
    return own


def next_list(
    newest: bytes, root: RootHome, issuer: Issuer, plan: Callable[[Revocations], Revocations]
) -> tuple[Revocations, bytes]:
    """The list that `plan` makes of the newest, signed by the root; nothing is kept or sent.

    The newest is that which is known here or in the root's directory.
    """
    known = [read_of(data, issuer.certificate) for data in (newest, _read(root.revocations))]
    listed = plan(max(known, key=lambda one: one.version))
    signed = sign_revocations(encode_revocations(listed), issuer.key)
    return listed, encode_signed_revocations(signed)


def keep_list(root: RootHome, profile: Path, data: bytes) -> None:
    """Keep a list that was signed here, before anybody is told."""
    replace_durably(root.revocations, data)
    replace_durably(profile, data)


def revoked_operator(operator: Operator, at: datetime, root: x509.Certificate) -> RevokedOperator:
    """The entry for an operator as the controller knows it.

    With the key that the root certified for that name; by the name alone where the controller
    shows another, which might be somebody else's.
    """
    try:
        leaf = read_certificate(operator.certificate)
        identity = believe(leaf, root=root, issuing=(), now=leaf.not_valid_before_utc)
    except IdentityError:
        return RevokedOperator(operator.name, b"", at)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _is(identity, operator.name):
        return RevokedOperator(operator.name, b"", at)
    return RevokedOperator(operator.name, key_hash(key), at)


def _is(identity: Identity, name: str) -> bool:
    return isinstance(identity, OperatorIdentity) and identity.name == name


def refuse_last(operators: list[Operator], name: str) -> None:
    """Raise PRECONDITION for the last administrator of all tenants: nobody could add another."""
    left = {
        one.name
        for one in operators
        if one.role == Role.ADMIN and not one.tenant_ids and not one.revoked_at_ms
    }
    if left == {name}:
        raise SteadError(
            f"{name} is the last administrator of all tenants; add another one first, with "
            "`stead operator add`",
            code=Code.PRECONDITION,
        )


def read_of(data: bytes, root: x509.Certificate) -> Revocations:
    """A list, read; version 0 for none."""
    return read_revocations(data, root) if data else NO_REVOCATIONS


def _version(data: bytes, root: x509.Certificate) -> int:
    return read_of(data, root).version


def _read(path: Path) -> bytes:
    return path.read_bytes() if os.path.lexists(path) else b""
