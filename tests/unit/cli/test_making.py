"""Whose certificate is made again, where the controller may say anything."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificates import certify_operator
from controller.authority.keys import new_key, new_serial
from controller.cli.operator.connection import Connection
from controller.cli.operator.making import known_operator
from controller.config import OperatorHome
from protocol.codec import encode_revocations, encode_signed_revocations
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.v1.operator_pb2 import GetRevocationsResponse, ListOperatorsResponse, Operator
from tests.unit.protocol.signed import ANN, KEY, NOW, ROOT, authority, operator


class Given:
    """A controller that says of ann what it likes."""

    def __init__(self, home: Path, shown: x509.Certificate) -> None:
        self.root = ROOT.certificate
        self.operators = self
        self.home = OperatorHome(home)
        self._shown = shown.public_bytes(Encoding.DER)

    def ListOperators(self, _: object) -> ListOperatorsResponse:  # noqa: N802
        return ListOperatorsResponse(operators=[Operator(name="ann", certificate=self._shown)])

    def GetRevocations(self, _: object) -> GetRevocationsResponse:  # noqa: N802
        return GetRevocationsResponse()


def refused(given: Given) -> Code:
    with pytest.raises(SteadError) as caught:
        known_operator(cast("Connection", given), "ann", KEY.public_key())
    return caught.value.code


def test_it_is_who_the_root_made_for_this_key_and_name(tmp_path: Path) -> None:
    given = cast("Connection", Given(tmp_path, ANN))
    assert known_operator(given, "ann", KEY.public_key()).name == "ann"
    other = OperatorIdentity("root", Role.ADMIN, None)
    same_key = certify_operator(ROOT, KEY.public_key(), other, serial=new_serial(), now=NOW)
    assert refused(Given(tmp_path, same_key)) is Code.BAD_SIGNATURE
    assert refused(Given(tmp_path, operator(key=new_key()))) is Code.BAD_SIGNATURE
    assert refused(Given(tmp_path, operator(authority()))) is Code.UNAUTHENTICATED


def test_the_roots_own_list_counts_where_the_controller_says_nothing(tmp_path: Path) -> None:
    given = Given(tmp_path, ANN)
    listed = encode_revocations(Revocations(1, NOW, (RevokedOperator("ann", b"", NOW),)))
    data = encode_signed_revocations(sign_revocations(listed, ROOT.key))
    given.home.revocations.write_bytes(data)
    assert refused(given) is Code.REVOKED
