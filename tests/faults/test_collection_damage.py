"""A pack that a collection would write anew is damaged: nothing of it is moved, nothing deleted."""

from __future__ import annotations

from controller.vault.check import check
from tests.faults.test_collection_index import Vault, vault

__all__ = ["vault"]


def pack_with(vault: Vault, content: bytes) -> str:
    """The key of the one object that holds these bytes."""
    (key,) = [key for key in vault.objects() if content in vault.world.store.get(key)]
    return key


async def stays(vault: Vault, *, damage: bool) -> bool:
    """Keep one chunk of a pack and collect the rest; whether the pack is there still."""
    leaves = vault.some(6)
    old = await vault.back_up(leaves)
    await vault.back_up(leaves[:1])
    vault.forget(old)
    place = pack_with(vault, leaves[0][1])
    if damage:
        path = vault.home / "objects" / place
        whole = bytearray(path.read_bytes())
        whole[whole.index(leaves[0][1]) + len(leaves[0][1]) - 1] ^= 1
        path.write_bytes(whole)
        assert check(vault.world.store, vault.world.db).faults
    for _ in range(4):
        vault.collect(hours=3)
    return place in vault.objects()


async def test_what_is_whole_is_written_anew(vault: Vault) -> None:
    assert not await stays(vault, damage=False)
    assert not check(vault.world.store, vault.world.db).faults


async def test_what_is_damaged_stays_where_it_is_and_is_still_found(vault: Vault) -> None:
    assert await stays(vault, damage=True)
    assert check(vault.world.store, vault.world.db).faults
