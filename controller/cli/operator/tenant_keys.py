"""A tenant's recovery keys as an operator uses them: the right one for each purpose.

The controller lists public halves and passes on links. What it says is never taken for
more than where to look: a key counts when this profile holds it, or when a link that only
a key held here can open leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.cli.operator.connection import Connection
from controller.cli.output.emit import from_wire_ms
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.ids import MachineId, TenantId
from protocol.sealing import check_sealing_proof
from protocol.v1.operator_pb2 import ListTenantKeysRequest, Machine, Tenant, TenantKey
from protocol.vault.epochs import TenantKeys, with_links
from protocol.vault.keys import TenantKey as RecoveryKey
from protocol.vault.point import RestorePoint, key_id


def listed_keys(connection: Connection, tenant: TenantId) -> Sequence[TenantKey]:
    """The keys that the tenant has had, newest first, as the controller lists them."""
    return connection.tenants.ListTenantKeys(ListTenantKeysRequest(tenant_id=tenant)).keys


def all_keys(connection: Connection, tenant: TenantId) -> TenantKeys:
    """The keys that this profile holds, with those that links lead to."""
    held = connection.keyring.load(tenant)
    return with_links(held, [key.link for key in listed_keys(connection, tenant)])


def key_of_point(connection: Connection, point: RestorePoint) -> RecoveryKey:
    """The recovery key that a restore point was made under.

    PRECONDITION when this profile has no key of the tenant, NOT_FOUND when it has others.
    """
    tenant = TenantId(point.tenant)
    held = connection.keyring.load(tenant)
    try:
        return held.of_point(point)
    except NotFoundError:
        return all_keys(connection, tenant).of_point(point)


def present_keys(connection: Connection, tenant: Tenant) -> TenantKeys:
    """The keys held here, the newest of which is in force; PRECONDITION when it is not."""
    keys = connection.keyring.load(TenantId(tenant.tenant_id))
    if keys.newest.secret.recovery_public == tenant.recovery_key:
        return keys
    if connection.keyring.is_prepared(TenantId(tenant.tenant_id), tenant.recovery_key):
        raise SteadError(
            f"the rotation of {tenant.name}'s recovery key was cut off here; run "
            f"`stead tenant key rotate {tenant.name}` again to end it",
            code=Code.PRECONDITION,
        )
    raise SteadError(
        f"the recovery key of {tenant.name} in this profile is not the one in force; have it "
        f"shared with you, then run `stead tenant key receive {tenant.name}`",
        code=Code.PRECONDITION,
    )


def merged(
    tenant: Tenant, listed: Sequence[TenantKey], held: TenantKeys | None, given: TenantKeys
) -> TenantKeys:
    """The keys held and given and all that links lead to, in the order of the list.

    INVALID when a given key is none of this tenant's.
    """
    order = {key.recovery_key: place for place, key in enumerate(listed)}
    links = [key.link for key in listed]
    found: set[RecoveryKey] = set()
    for start in (held, given):
        if start is not None:
            for key in start.keys:
                found |= set(with_links(TenantKeys((key,)), links).keys)
    if any(key.secret.recovery_public not in order for key in found):
        raise InvalidError(f"this is the recovery key of another tenant, not of {tenant.name}")
    return TenantKeys(tuple(sorted(found, key=lambda key: order[key.secret.recovery_public])))


def key_of_machine(keys: TenantKeys, machine: Machine) -> RecoveryKey | None:
    """The key whose secret the machine has proved to hold; None when it proved none."""
    return next((key for key in keys.keys if is_proved(key, machine)), None)


def is_proved(key: RecoveryKey, machine: Machine) -> bool:
    """Whether the machine's sealing key is proved with the secret of this recovery key."""
    if not machine.sealing_key:
        return False
    try:
        check_sealing_proof(
            key.secret, MachineId(machine.machine_id), machine.sealing_key, machine.sealing_proof
        )
    except SteadError:
        return False
    return True


def unproved(machine: Machine) -> SteadError:
    """Why nothing is sealed to a machine that proved none of the keys."""
    return SteadError(
        f"the sealing key shown for {machine.name} is not proven to be that machine's, so "
        "nothing is sealed to it; enroll the machine again with a new token",
        code=Code.BAD_SIGNATURE,
    )


def name_of_key(public: bytes) -> str:
    """By what people are shown a recovery key, from its public half."""
    return key_id(public).hex()[:16]


def key_row(key: TenantKey, *, here: bool, machines: int) -> dict[str, object]:
    """A key as a record."""
    return {
        "number": key.number,
        "key": name_of_key(key.recovery_key),
        "since": from_wire_ms(key.created_at_ms),
        "made_by": key.created_by,
        "key_here": here,
        "machines": machines,
        "recovery_key": key.recovery_key,
    }
