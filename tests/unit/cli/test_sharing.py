"""Who may hand recovery keys over, and to whom, where the controller may say anything."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller.cli.operator.connection import Connection
from controller.cli.operator.sharing import recipient_of, sender_of
from controller.config import OperatorHome
from protocol.codec import encode_revocations, encode_signed_revocations
from protocol.errors import Code, SteadError
from protocol.identity import Role
from protocol.ids import TenantId
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.v1.operator_pb2 import GetRevocationsResponse, ListOperatorsResponse, Operator
from tests.unit.protocol.signed import NOW, ROOT, TENANT, authority, machine_certificate, operator

OTHER = frozenset({TenantId("tn_" + "7" * 26)})


class Given:
    """A controller that shows whatever certificate it likes for whatever name."""

    def __init__(self, home: Path, shown: x509.Certificate, name: str = "ann") -> None:
        self.root = ROOT.certificate
        self.operators = self
        self.home = OperatorHome(home)
        self.shown = shown.public_bytes(Encoding.DER)
        self._name = name

    def ListOperators(self, _: object) -> ListOperatorsResponse:  # noqa: N802
        return ListOperatorsResponse(operators=[Operator(name=self._name, certificate=self.shown)])

    def GetRevocations(self, _: object) -> GetRevocationsResponse:  # noqa: N802
        return GetRevocationsResponse()


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.clock.now", lambda: NOW)


def code(given: Given, *, sends: bool, name: str = "ann") -> Code | None:
    connection = cast("Connection", given)
    try:
        if sends:
            sender_of(connection, given.shown, TENANT)
        else:
            recipient_of(connection, name, TENANT)
    except SteadError as error:
        return error.code
    return None


@pytest.mark.parametrize("sends", [True, False])
def test_both_are_operators_of_the_tenant_whom_the_root_made(tmp_path: Path, sends: bool) -> None:
    def of(shown: x509.Certificate) -> Code | None:
        return code(Given(tmp_path, shown), sends=sends)

    assert of(operator(role=Role.ADMIN)) is None
    assert of(operator(authority(), role=Role.ADMIN)) is Code.UNAUTHENTICATED
    assert of(machine_certificate()) in {Code.UNAUTHENTICATED, Code.BAD_SIGNATURE}
    assert of(operator(role=Role.ADMIN, tenants=OTHER)) is Code.WRONG_TENANT


def test_administrators_alone_hand_keys_over(tmp_path: Path) -> None:
    for role in (Role.TECHNICIAN, Role.HELPDESK, Role.AUDITOR):
        given = Given(tmp_path, operator(role=role))
        assert code(given, sends=True) is Code.DENIED
        assert code(given, sends=False) is None


def test_a_name_is_that_of_the_certificate(tmp_path: Path) -> None:
    given = Given(tmp_path, operator(role=Role.ADMIN), name="bob")
    assert code(given, sends=False, name="bob") is Code.BAD_SIGNATURE
    assert code(given, sends=False, name="eve") is Code.NOT_FOUND


@pytest.mark.parametrize("sends", [True, False])
def test_whom_the_root_revoked_neither_gives_nor_gets(tmp_path: Path, sends: bool) -> None:
    """Also where the controller, which may be in the same hands, says nothing of it."""
    given = Given(tmp_path, operator(role=Role.ADMIN))
    listed = encode_revocations(Revocations(1, NOW, (RevokedOperator("ann", b"", NOW),)))
    data = encode_signed_revocations(sign_revocations(listed, ROOT.key))
    given.home.revocations.write_bytes(data)
    assert code(given, sends=sends) is Code.REVOKED
