"""Recovery keys on their way from one operator to another."""

from __future__ import annotations

from typing import TypedDict

import pytest

from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.vault.epochs import TenantKeys
from protocol.vault.keys import TenantKey
from protocol.vault.seal import SealedError
from protocol.vault.share import open_share, seal_share, sign_share
from tests.unit.vault_format.points import TENANT, certificate, machine_key

KEYS = TenantKeys((TenantKey(b"\1" * 32), TenantKey(b"\2" * 32)))
ANN, EVE, MALLORY = machine_key(1), machine_key(2), machine_key(3)


class Names(TypedDict):
    tenant: TenantId
    name: str


NAMES: Names = {"tenant": TenantId(TENANT), "name": "eve"}


def test_the_receiver_gets_them_and_nobody_else() -> None:
    sealed = seal_share(KEYS, certificate(EVE), **NAMES)
    signature = sign_share(sealed, ANN, **NAMES)
    assert open_share(sealed, signature, certificate(ANN), EVE, **NAMES) == KEYS
    with pytest.raises(SealedError):
        open_share(sealed, signature, certificate(ANN), MALLORY, **NAMES)


def test_what_somebody_else_sent_is_not_the_senders() -> None:
    sealed = seal_share(KEYS, certificate(EVE), **NAMES)
    signature = sign_share(sealed, MALLORY, **NAMES)
    with pytest.raises(SteadError) as caught:
        open_share(sealed, signature, certificate(ANN), EVE, **NAMES)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_a_share_is_for_one_tenant_and_one_operator() -> None:
    sealed = seal_share(KEYS, certificate(EVE), **NAMES)
    signature = sign_share(sealed, ANN, **NAMES)
    others: list[Names] = [
        {**NAMES, "name": "bob"},
        {**NAMES, "tenant": TenantId("tn_" + "9" * 26)},
    ]
    for other in others:
        with pytest.raises(SteadError):
            open_share(sealed, signature, certificate(ANN), EVE, **other)
        signed = sign_share(sealed, ANN, **other)
        with pytest.raises(SealedError):
            open_share(sealed, signed, certificate(ANN), EVE, **other)
