"""A controller killed at any fsync, link, unlink or write of a collection loses no point.

The collection runs in another process under strace, which kills it at the Nth system
call. Afterwards every restore point that was kept is read, and a collection that is let
finish has to give the room back all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import Connection, select

from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.schema import tenants
from controller.store.local import LocalStore
from controller.vault import forgotten, index
from controller.vault.check import check
from controller.vault.condemn import Collected, Terms
from controller.vault.keys import pack_key
from controller.vault.vault import Vault
from protocol.tls import chain_pem
from protocol.vault.chunk import ChunkId, chunk_id
from tests.unit.controller_vault.world import START, World, an_id, data_chunk, tree_chunk

CALLS = ("fsync", "fdatasync", "link", "linkat", "unlink", "pwrite64")
PACK_BYTES = 32 * 1024
SEED = 20261126
LATER = START + timedelta(days=1)
NOTHING = timedelta()
TERMS = Terms(undo=NOTHING, grace=NOTHING, young=NOTHING, patience=NOTHING, worth=0.9)


def open_vault(home: Path) -> tuple[Vault, Database, LocalStore, str]:
    root, issuing = x509.load_pem_x509_certificates((home / "authorities.pem").read_bytes())
    db = Database.open(f"sqlite:///{home}/stead.db")
    store = LocalStore.open(home / "objects")
    trust = Trust(root, (issuing,))
    vault = Vault(
        store, db, trust, now=lambda: LATER, floor_bytes=0, pack_bytes=PACK_BYTES, terms=TERMS
    )
    tenant = db.read_now(lambda c: c.scalars(select(tenants.c.id)).one())
    return vault, db, store, tenant


async def collect(home: Path) -> Collected:
    """What the process under strace does: twice, since the second one sweeps the rest."""
    vault, db, _, tenant = open_vault(home)
    done = Collected()
    try:
        for _ in range(2):
            done = Collected()
            for _step in vault.collector.run(tenant, done):
                pass
    finally:
        await vault.close()
        await db.close()
    return done


async def prepare(home: Path) -> None:
    """Four restore points that share chunks; two of them are forgotten."""
    home.mkdir()
    world = World.make(home, pack_bytes=PACK_BYTES, terms=TERMS)
    who = await world.machine()
    chance = random.Random(SEED)
    shared = [data_chunk(chance.randbytes(3000)) for _ in range(8)]
    kept: dict[str, list[str]] = {}
    for number in range(4):
        begun = await world.vault.begin(who.identity, an_id("rp"))
        own = [data_chunk(chance.randbytes(3000)) for _ in range(20)]
        made = [*shared[number : number + 4], *own]
        root = tree_chunk(chance.randbytes(200), [identity for identity, _ in made])
        await world.send(who, begun, [[stored for _, stored in [*made, root]]], flush=True)
        record = await world.point(who, root[0], begun)
        session = begun.session
        done = await world.vault.commit(who.identity, session.id, session.fence, record)
        if number % 2:
            kept[done.point] = [identity.hex() for identity, _ in [*made, root]]
        else:
            act = partial(forgotten.forget, point=done.point, reason="a test", at=world.clock.at)
            world.db.write_now(act)
        world.clock.advance(minutes=1)
    (home / "kept.json").write_text(json.dumps(kept))
    (home / "authorities.pem").write_bytes(
        chain_pem([world.root.certificate, world.issuing.certificate])
    )
    await world.close()


@dataclass(frozen=True)
class Killed:
    call: str
    number: int


def run_killed(home: Path, kill: Killed) -> bool:
    """Whether the process died of it."""
    fault = f"{kill.call}:signal=KILL:when={kill.number}"
    traced = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={kill.call}"]
    program = [sys.executable, "-m", "tests.faults.test_collection_kill", str(home)]
    done = subprocess.run(
        [*traced, "-e", f"inject={fault}", *program],
        capture_output=True,
        timeout=60,
        check=False,
    )
    # A process that ended by itself, in another way than well, is a failure.
    assert done.returncode in {0, -9, 137}, done.stderr
    return done.returncode != 0


async def lost(home: Path) -> int:
    """How many chunks of kept restore points cannot be read, or are others."""
    vault, db, store, tenant = open_vault(home)
    count = 0
    try:
        for ids in json.loads((home / "kept.json").read_text()).values():
            wanted = [ChunkId(bytes.fromhex(one)) for one in ids]
            places = db.read_now(partial(_locate, tenant=tenant, ids=wanted))
            for one in wanted:
                place = places.get(one)
                found = store.get(*place) if place is not None else b""
                count += chunk_id(found) != one
        assert not check(store, db).faults
    finally:
        await vault.close()
        await db.close()
    return count


def _locate(
    connection: Connection, tenant: str, ids: list[ChunkId]
) -> dict[ChunkId, tuple[str, int, int]]:
    found = index.locate(connection, tenant, ids)
    return {one: (pack_key(tenant, p.pack), p.offset, p.length) for one, p in found.items()}


def kill_everywhere(tmp_path: Path, numbers: list[int]) -> None:
    prepared = tmp_path / "prepared"
    asyncio.run(prepare(prepared))
    whole = tmp_path / "whole"
    shutil.copytree(prepared, whole)
    done = asyncio.run(collect(whole))
    assert done.chunks < 120
    stored = _stored(whole)
    assert stored < _stored(prepared)
    tried = died = 0
    for call in CALLS:
        for number in numbers:
            home = tmp_path / f"{call}-{number}"
            shutil.copytree(prepared, home)
            tried += 1
            if not run_killed(home, Killed(call, number)):
                shutil.rmtree(home)
                break
            died += 1
            assert asyncio.run(lost(home)) == 0, (call, number)
            asyncio.run(collect(home))
            assert asyncio.run(lost(home)) == 0, (call, number)
            assert _stored(home) <= stored + PACK_BYTES, (call, number)
            shutil.rmtree(home)
    print(f"points tried {tried}, died {died}, acknowledged-and-lost 0")
    assert died


def _stored(home: Path) -> int:
    return sum(size for _, size in LocalStore.open(home / "objects").list())


@pytest.mark.skipif(shutil.which("strace") is None, reason="not run: there is no strace")
def test_a_kill_of_a_collection_loses_nothing(tmp_path: Path) -> None:
    kill_everywhere(tmp_path, [5])


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.skipif(shutil.which("strace") is None, reason="not run: there is no strace")
def test_a_kill_anywhere_in_a_collection_loses_nothing(tmp_path: Path) -> None:
    kill_everywhere(tmp_path, list(range(1, 200)))


if __name__ == "__main__":
    asyncio.run(collect(Path(sys.argv[1])))
