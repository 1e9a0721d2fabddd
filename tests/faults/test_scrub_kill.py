"""A controller killed at any call while it puts damage aside loses nothing that was whole.

It runs as another process under strace, which kills it at the Nth system call. Whatever
moment that is: every whole chunk stays readable, the damaged pack ends in the quarantine,
the loss is known, and a backup heals it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.vault.check import check
from controller.vault.scrub.mend import finish
from controller.vault.upload.writer import Arrival
from controller.vault.vault import Vault
from protocol.errors import SteadError
from protocol.identity import MachineIdentity
from protocol.ids import PointId
from protocol.vault.chunk import ChunkId
from tests.faults.test_vault_controller import (
    CALLS,
    SEED,
    Backup,
    back_up,
    open_vault,
    prepare,
    the_machine,
)
from tests.unit.controller_vault.world import Clock, an_id

KILLS, ALL_KILLS = 4, 80


async def scrub(home: Path) -> None:
    """What the process under strace does: mend everything."""
    vault, db, _ = open_vault(home)
    try:
        tenant = the_machine(db).tenant
        async for _ in vault.scrub.ordered([tenant], mend_all=True):
            pass
    finally:
        await vault.close()
        await db.close()


async def prepare_damage(home: Path) -> None:
    """A committed backup with one flipped bit in the content of one of its chunks."""
    await prepare(home)
    vault, db, _ = open_vault(home)
    await back_up(home, vault, the_machine(db))
    await vault.close()
    await db.close()
    _, content = harmed_chunk()
    (path,) = [
        path
        for path in home.glob("objects/tn_*/packs/*/*")
        if path.is_file() and content in path.read_bytes()
    ]
    whole = bytearray(path.read_bytes())
    whole[whole.index(content) + len(content) // 2] ^= 8
    path.write_bytes(whole)


def harmed_chunk() -> tuple[ChunkId, bytes]:
    backup = Backup.make()
    return backup.ids[9], backup.content[9]


def run(home: Path, fault: str | None) -> tuple[bool, dict[str, int]]:
    """Whether it died, and how often it made each call."""
    trace = home / "trace"
    inject = [] if fault is None else ["-e", f"inject={fault}"]
    done = subprocess.run(
        [
            "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}", *inject,
            sys.executable, "-B", "-m", "tests.faults.test_scrub_kill", str(home),
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert fault is not None or done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    return done.returncode != 0, {call: sum(f" {call}(" in one for one in lines) for call in CALLS}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("strace") is None:
        pytest.skip("not run: strace is missing")
    home = tmp_path_factory.mktemp("damaged") / "home"
    asyncio.run(prepare_damage(home))
    return home


@pytest.fixture(scope="module")
def calls(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often a scrub that is not killed makes each call."""
    home = tmp_path_factory.mktemp("whole") / "home"
    shutil.copytree(prepared, home)
    died, made = run(home, None)
    assert not died
    return {call: count for call, count in made.items() if count}


async def judge(home: Path) -> None:
    """Start again as a controller does, and see that only the harmed chunk is gone."""
    vault, db, store = open_vault(home)
    machine, backup = the_machine(db), Backup.make()
    harmed, _ = harmed_chunk()
    await asyncio.to_thread(finish, store, db, vault.scrub._claims, Clock().now())
    async for _ in vault.scrub.ordered([machine.tenant], mend_all=True):
        pass
    for identity, content in zip(backup.ids, backup.content, strict=True):
        try:
            given = [c async for m in vault.get(machine, "", [identity]) for c in m]
        except SteadError:
            assert identity == harmed
            continue
        assert given == [content]
    (status,) = await vault.scrub.status([machine.tenant])
    assert sum(one.missing for one in status.damages) == 1
    assert {p for one in status.damages for named in (one.hit or {}).values() for p in named} == {
        (home / "point").read_text()
    }
    aside = [p for p in (home / "objects" / ".quarantine").rglob("*") if p.is_file()]
    # Twice, when it died between its new name and the end of the old one.
    assert len({p.read_bytes() for p in aside if p.suffix != ".reason"}) == 1
    faults = check(store, db).faults
    assert all(harmed.hex() in fault.reason for fault in faults), faults
    await heal(vault, machine)
    assert not check(store, db).faults
    (status,) = await vault.scrub.status([machine.tenant])
    assert sum(one.missing for one in status.damages) == 0
    await vault.close()
    await db.close()


async def heal(vault: Vault, machine: MachineIdentity) -> None:
    """The next backup of the machine: it is to read everything, and sends what is gone."""
    begun = await vault.begin(machine, PointId(an_id("rp")))
    assert begun.session.parent is None
    backup = Backup.make()
    held = await vault.has(machine, begun.session.id, backup.ids)
    to_send = [c for c, is_held in zip(backup.content, held, strict=True) if not is_held]
    assert len(to_send) == 1

    async def arrivals() -> AsyncIterator[Arrival]:
        yield Arrival(to_send, flush=True, session=begun.session.id)

    assert [durable async for durable in vault.put(machine, arrivals())][-1] == 1


async def kill_once(prepared: Path, home: Path, calls: dict[str, int], seed: int) -> bool:
    chance = random.Random(SEED + seed)
    call = sorted(calls)[seed % len(calls)]
    shutil.copytree(prepared, home)
    # strace counts by thread: a call that none of them makes so often kills nobody.
    number = chance.randint(1, max(1, calls[call]))
    died, _ = await asyncio.to_thread(run, home, f"{call}:signal=KILL:when={number}")
    await judge(home)
    return died


@pytest.mark.parametrize("seed", range(KILLS))
async def test_a_kill_while_damage_is_put_aside_loses_nothing_more(
    prepared: Path, calls: dict[str, int], tmp_path: Path, seed: int
) -> None:
    await kill_once(prepared, tmp_path / "home", calls, seed)


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_kills_everywhere_while_damage_is_put_aside_lose_nothing_more(
    prepared: Path, calls: dict[str, int], tmp_path: Path
) -> None:
    died = [
        await kill_once(prepared, tmp_path / f"home{seed}", calls, seed)
        for seed in range(ALL_KILLS)
    ]
    print(f"{len(died)} runs, {sum(died)} of them killed")
    assert sum(died) > ALL_KILLS // 3


if __name__ == "__main__":
    asyncio.run(scrub(Path(sys.argv[1])))
