"""Take another vault secret: the machine's part in a change of its tenant's recovery key."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.config import AgentHome
from agent.host import clock
from agent.host.files import read_if_there, write_atomically
from protocol.action import ChangeVaultSecret
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.ids import MachineId, TaskId
from protocol.order import Order
from protocol.outcome import Outcome, OutcomeState
from protocol.sealing import open_secret
from protocol.vault.keys import encode_vault_secret


class SecretOrder(msgspec.Struct, frozen=True):
    """The file `vault.order`: when the order behind the present secret was signed."""

    issued_at: clock.Moment


def change_secret(home: AgentHome, task: TaskId, order: Order, machine: MachineId) -> Outcome:
    """Keep the secret that a verified order brings. A backup that runs ends under the old one.

    Raises REPLAYED for an order that is older than the last one: who carries orders must not
    lead a machine back to a key that was given up. `SealedError` or `InvalidError` when
    there is nothing for this machine in it; PRECONDITION when it has no key of its own.
    """
    action = order.action
    assert isinstance(action, ChangeVaultSecret)
    last = _last(home)
    if last is not None and order.issued_at < last.issued_at:
        raise SteadError(
            f"the vault secret in use was ordered later, at {last.issued_at:%Y-%m-%d %H:%M:%S}Z",
            code=Code.REPLAYED,
        )
    sealed = action.sealed_secrets.get(machine)
    if sealed is None:
        raise InvalidError("the order brings no secret for this machine; send it again")
    try:
        key = X25519PrivateKey.from_private_bytes(home.sealing_key.read_bytes())
    except (OSError, ValueError) as error:
        raise SteadError(
            f"this machine has no key to open it with: {home.sealing_key}: {error}; enroll it "
            "again with `stead-agent enroll --force`",
            code=Code.PRECONDITION,
        ) from error
    secret = open_secret(key, sealed, tenant=order.tenant, machine=machine)
    # In this order: cut in between, the same order is executed again, and no older one.
    write_atomically(home.vault_order, msgspec.json.encode(SecretOrder(order.issued_at)))
    write_atomically(home.vault_secret, encode_vault_secret(secret))
    return Outcome(task, OutcomeState.SUCCEEDED, message="the next backup uses the new key")


def _last(home: AgentHome) -> SecretOrder | None:
    data = read_if_there(home.vault_order)
    try:
        return None if data is None else msgspec.json.decode(data, type=SecretOrder)
    except UNREADABLE as error:
        raise InvalidError(
            f"{home.vault_order} is damaged: {error}; it guards against old orders. Delete it, "
            "then have the secret sent again with `stead tenant key send`"
        ) from error
