"""Restore points that nobody made: records of a real one with something else in them.

No root has signed their certificates, which only `stead vault recover --root` finds.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from controller.authority.certificates import Issuer, certify_machine, make_root
from controller.authority.keys import new_key
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId
from protocol.vault.keys import TenantKey
from protocol.vault.point import (
    decode_envelope,
    open_contents,
    seal_contents,
    sign_point,
    verify_point,
)


def resealed(
    record: Path,
    key: TenantKey,
    objects: Path,
    *,
    point: str = "",
    tenant: str = "",
    begun: datetime | None = None,
    seal_to: TenantKey | None = None,
) -> None:
    """Write a copy of a record, which `key` opens, below `objects`; it follows no other."""
    old = verify_point(decode_envelope(record.read_bytes()))
    tenant, point, begun = tenant or old.tenant, point or old.id, begun or old.started_at
    sealed = seal_contents(
        open_contents(key.recovery_private, old),
        (seal_to or key).secret.recovery_public,
        kind="tenant",
        tenant=tenant,
        machine=old.machine,
        point=point,
    )
    made = msgspec.structs.replace(
        old, id=point, tenant=tenant, started_at=begun, sealed=(sealed,), previous=bytes(32)
    )
    own = new_key()
    issuer = Issuer(make_root(own, serial=1, now=begun), own)
    identity = MachineIdentity(TenantId(tenant), MachineId(old.machine))
    leaf = certify_machine(issuer, own.public_key(), identity, serial=2, now=begun)
    place = objects / tenant / "points" / old.machine / point
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(sign_point(made, own, [leaf]))
