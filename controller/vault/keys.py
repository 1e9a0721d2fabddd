"""How the vault's objects are named in the object store.

<tenant>/packs/<first two digits>/<pack id>
<tenant>/points/<machine>/<point id>
<tenant>/keys/<name of the newer recovery key, in hex>: the link to the key before it
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.ids import MachineId, PointId, TenantId
from protocol.vault.pack import PackId


class PackKey(NamedTuple):
    """A pack's key, taken apart."""

    tenant: TenantId
    pack: PackId


class PointKey(NamedTuple):
    """A restore point's key, taken apart."""

    tenant: TenantId
    machine: MachineId
    point: PointId


def pack_key(tenant: str, pack: str) -> str:
    """The key of a pack.

    >>> pack_key("tn_1", "abcdef")
    'tn_1/packs/ab/abcdef'
    """
    return f"{tenant}/packs/{pack[:2]}/{pack}"


def point_key(tenant: str, machine: str, point: str) -> str:
    """The key of a restore point's record."""
    return f"{tenant}/points/{machine}/{point}"


def link_key(tenant: str, name: bytes) -> str:
    """The key of the link that leads from a recovery key, by its name, to the one before.

    >>> link_key("tn_1", bytes(16))
    'tn_1/keys/00000000000000000000000000000000'
    """
    return f"{tenant}/keys/{name.hex()}"


def parse_key(key: str) -> PackKey | PointKey | None:
    """What a key names; None when it is neither a pack nor a restore point.

    >>> parse_key("tn_1/packs/ab/abcdef")
    PackKey(tenant='tn_1', pack='abcdef')
    """
    match key.split("/"):
        case [tenant, "packs", folder, pack] if pack[:2] == folder:
            return PackKey(TenantId(tenant), PackId(pack))
        case [tenant, "points", machine, point]:
            return PointKey(TenantId(tenant), MachineId(machine), PointId(point))
        case _:
            return None
