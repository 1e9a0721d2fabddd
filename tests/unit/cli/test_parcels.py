"""Keys for many machines, in one order."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from controller.cli.files.parcels import MOST_MACHINES, sealed_to_all
from protocol.action import PutFile
from protocol.codec import MAX_ORDER_BYTES, encode_order
from protocol.errors import InvalidError
from protocol.ids import MachineId, OrderId, ParcelId, TenantId, make_id
from protocol.order import Order
from protocol.parcel import seal_key
from protocol.v1.operator_pb2 import Machine
from protocol.vault.epochs import TenantKeys
from protocol.vault.keys import TenantKey

TENANT = TenantId("tn_00000000000000000000000001")
PARCEL = ParcelId("pc_00000000000000000000000001")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_the_keys_of_so_many_machines_fit_into_an_order() -> None:
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    ids = [
        MachineId(make_id("mc", at_ms=0, random=n.to_bytes(10, "big")))
        for n in range(MOST_MACHINES)
    ]
    sealed = seal_key(os.urandom(32), public, tenant=TENANT, machine=ids[0], parcel=PARCEL)
    action = PutFile(
        path=b"/" * 4096,
        parcel_id=PARCEL,
        sealed_keys=dict.fromkeys(ids, sealed),
        size=1 << 40,
        content_hash=bytes(32),
        owner="o" * 256,
        group="g" * 256,
    )
    hour = timedelta(hours=1)
    order = Order(
        id=OrderId("or_00000000000000000000000001"),
        tenant=TENANT,
        machines=tuple(ids),
        action=action,
        issued_at=NOW,
        not_before=NOW,
        deliver_by=NOW + hour,
        timeout=hour,
        reason="r" * 1000,
    )
    assert len(encode_order(order)) < MAX_ORDER_BYTES


def test_more_are_refused_before_anything_is_sent() -> None:
    keys = TenantKeys((TenantKey(bytes(32)),))
    with pytest.raises(InvalidError, match="fewer"):
        sealed_to_all([Machine()] * (MOST_MACHINES + 1), keys, {}, tenant=TENANT, parcel=PARCEL)
