"""A machine takes another vault secret, and no older one after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.config import AgentHome
from agent.tasks.secret import change_secret
from protocol.action import ChangeVaultSecret
from protocol.errors import Code, SteadError
from protocol.ids import MachineId, TenantId
from protocol.order import Order
from protocol.outcome import OutcomeState
from protocol.sealing import seal_secret
from protocol.vault.keys import TenantKey, VaultSecret, decode_vault_secret
from tests.fakes.link_server import fresh, new_task
from tests.unit.protocol.signed import MACHINE, NOW, ORDER, TENANT

OLD, NEW, NEWEST = (TenantKey(bytes([n]) * 32).secret for n in range(3))
OTHER = MachineId("mc_" + "1" * 26)


class Machine:
    def __init__(self, path: Path) -> None:
        self.home = AgentHome(path)
        self.key = X25519PrivateKey.generate()
        self.home.sealing_key.write_bytes(self.key.private_bytes_raw())

    def order(
        self,
        secret: VaultSecret,
        *,
        minutes: int = 0,
        tenant: TenantId = TENANT,
        machine: MachineId = MACHINE,
    ) -> Order:
        public = self.key.public_key().public_bytes_raw()
        sealed = seal_secret(secret, public, tenant=tenant, machine=machine)
        return Order(
            id=ORDER.id,
            tenant=TENANT,
            machines=(MACHINE,),
            action=ChangeVaultSecret({MACHINE: sealed}),
            issued_at=NOW + timedelta(minutes=minutes),
            not_before=NOW,
            deliver_by=NOW + timedelta(days=30),
            timeout=timedelta(minutes=1),
        )

    def take(self, order: Order) -> None:
        outcome = change_secret(self.home, new_task(), order, MACHINE)
        assert outcome.state is OutcomeState.SUCCEEDED

    @property
    def secret(self) -> VaultSecret:
        return decode_vault_secret(self.home.vault_secret.read_bytes())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_secret_is_changed_also_twice_by_the_same_order(machine: Machine) -> None:
    order = machine.order(NEW)
    machine.take(order)
    machine.take(order)
    assert machine.secret == NEW
    assert machine.home.vault_secret.stat().st_mode & 0o777 == 0o600


def test_an_order_that_was_held_back_leads_to_no_older_key(machine: Machine) -> None:
    held_back = machine.order(NEW, minutes=1)
    machine.take(machine.order(NEWEST, minutes=2))
    with pytest.raises(SteadError) as caught:
        machine.take(held_back)
    assert caught.value.code is Code.REPLAYED
    assert machine.secret == NEWEST


def test_a_secret_for_another_machine_or_tenant_is_not_taken(machine: Machine) -> None:
    machine.home.vault_secret.write_bytes(b"as it was")
    orders = [
        machine.order(NEW, machine=OTHER),
        machine.order(NEW, tenant=TenantId(fresh("tn"))),
    ]
    for order in orders:
        with pytest.raises(SteadError):
            machine.take(order)
    assert machine.home.vault_secret.read_bytes() == b"as it was"
    assert not machine.home.vault_order.exists()
