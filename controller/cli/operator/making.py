"""What making an operator takes: a name that is free, the root, a scope, and the rows to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from controller import clock
from controller.authority.certificates import Issuer
from controller.cli.app import App
from controller.cli.operator.choice import tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.operator.renewal import load_root
from controller.cli.operator.revoking import newest_list, read_of
from controller.cli.output.emit import from_wire_ms
from controller.config import RootHome
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, Role, believe, key_hash, read_certificate
from protocol.ids import TenantId
from protocol.order import Signer
from protocol.revocation import check_not_revoked
from protocol.v1.operator_pb2 import ListOperatorsRequest, Operator


def refuse_taken(connection: Connection, name: str) -> None:
    """Raise ALREADY_EXISTS when there is, or was, an operator of this name."""
    known = connection.operators.ListOperators(ListOperatorsRequest()).operators
    if any(operator.name == name for operator in known):
        raise SteadError(
            f"there is an operator {name} already; see `stead operator ls`",
            code=Code.ALREADY_EXISTS,
        )


def known_operator(
    connection: Connection, name: str, key: ec.EllipticCurvePublicKey
) -> OperatorIdentity:
    """Who an operator is, by the certificate that the root signed for this very key and name.

    Raises NOT_FOUND for nobody, REVOKED also where the root's list alone says so, and
    BAD_SIGNATURE for another key: a name goes to no key that did not have it.
    """
    known = connection.operators.ListOperators(ListOperatorsRequest()).operators
    found = next((operator for operator in known if operator.name == name), None)
    if found is None:
        raise NotFoundError(f"there is no operator {name[:80]!r}; leave --renew out")
    if found.revoked_at_ms:
        raise SteadError(f"{name} was revoked; give another name", code=Code.REVOKED)
    leaf = read_certificate(found.certificate)
    begun = leaf.not_valid_before_utc
    identity = believe(leaf, root=connection.root, issuing=(), now=begun)
    if leaf.public_key() != key or not isinstance(identity, OperatorIdentity):
        raise SteadError(
            f"the request is for another key than {name}'s; who lost a key is revoked, and added "
            "under another name",
            code=Code.BAD_SIGNATURE,
        )
    if identity.name != name:
        raise SteadError(
            f"the controller gave {identity.name}'s certificate for {name}'s",
            code=Code.BAD_SIGNATURE,
        )
    revoked = read_of(newest_list(connection), connection.root)
    check_not_revoked(revoked, Signer(identity, key_hash(key)))
    return identity


def root_of(app: App, named: Path | None) -> RootHome:
    """The root's directory."""
    return app.root if named is None else RootHome(named)


def issuer_of(app: App, named: Path | None) -> Issuer:
    """The root with its key; WRONG_PIN when it is another installation's than the profile."""
    home = root_of(app, named)
    issuer = load_root(home, clock.now())
    if issuer.certificate != app.connection.root:
        raise SteadError(
            f"the root in {home.path} belongs to another installation than this profile; name "
            "the right one with --root",
            code=Code.WRONG_PIN,
        )
    return issuer


def identity_for(
    connection: Connection, name: str, role: str, tenants: Sequence[str]
) -> OperatorIdentity:
    """Who an operator is to be; `tenants` are names, none of them is all tenants."""
    scope = frozenset(TenantId(tenant_named(connection, t).tenant_id) for t in tenants)
    return OperatorIdentity(name, Role(role), scope or None)


def operator_row(operator: Operator, names: dict[str, str]) -> dict[str, Any]:
    """An operator as a record."""
    revoked = from_wire_ms(operator.revoked_at_ms)
    return {
        "name": operator.name,
        "role": operator.role,
        "state": "active" if revoked is None else "revoked",
        "tenants": [names.get(t, t) for t in operator.tenant_ids] or ["all"],
        "ends_at": from_wire_ms(operator.not_after_ms),
        "revoked_at": revoked,
    }
