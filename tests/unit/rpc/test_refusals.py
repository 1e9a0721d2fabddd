"""How errors leave the controller."""

from __future__ import annotations

from controller.rpc.refusals import STATUS
from protocol.errors import Code


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)
