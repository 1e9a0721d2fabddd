"""A controller killed at any fsync, link or unlink of a backup loses nothing it acknowledged.

The controller runs as another process under strace, which kills it at the Nth system
call. What it acknowledged it has printed before: a ledger outside of itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select

from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.errors import DatabaseDamagedError
from controller.db.schema import machines
from controller.store.local import LocalStore
from controller.vault.check import check
from controller.vault.scrub.rebuild import rebuild
from controller.vault.upload.sessions import Begun
from controller.vault.upload.writer import Arrival
from controller.vault.vault import Vault
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId
from protocol.tls import chain_pem
from protocol.vault.chunk import ChunkId
from tests.unit.controller_vault.world import (
    START,
    Clock,
    World,
    a_point,
    an_id,
    data_chunk,
    tree_chunk,
)

CALLS = ("fsync", "fdatasync", "link", "linkat", "unlink", "pwrite64")
PACK_BYTES = 64 * 1024
CHUNKS = 43
SEED = 20260501


@dataclass(frozen=True)
class Backup:
    """The same chunks in every process: content, trees over it, a root."""

    ids: list[ChunkId]
    content: list[bytes]

    @classmethod
    def make(cls) -> Backup:
        chance = random.Random(SEED)
        made: list[tuple[ChunkId, bytes]] = []
        trees: list[ChunkId] = []
        for _ in range(6):
            leaves = [data_chunk(chance.randbytes(12_000)) for _ in range(6)]
            tree = tree_chunk(chance.randbytes(3_000), [identity for identity, _ in leaves])
            made += [*leaves, tree]
            trees.append(tree[0])
        made.append(tree_chunk(b"root", trees))
        return cls([identity for identity, _ in made], [content for _, content in made])


def open_vault(home: Path) -> tuple[Vault, Database, LocalStore]:
    root, issuing = x509.load_pem_x509_certificates((home / "authorities.pem").read_bytes())
    db = Database.open(f"sqlite:///{home}/stead.db")
    store = LocalStore.open(home / "objects")
    trust = Trust(root, (issuing,))
    vault = Vault(store, db, trust, now=Clock().now, floor_bytes=0, pack_bytes=PACK_BYTES)
    return vault, db, store


def the_machine(db: Database) -> MachineIdentity:
    tenant, machine = db.read_now(
        lambda c: c.execute(select(machines.c.tenant_id, machines.c.id)).one()
    )
    return MachineIdentity(TenantId(tenant), MachineId(machine))


async def run_backup(home: Path) -> None:
    """What the process under strace does, resuming what an earlier one began."""
    vault, db, _ = open_vault(home)
    try:
        await back_up(home, vault, the_machine(db))
    finally:
        await vault.close()
        await db.close()


async def back_up(home: Path, vault: Vault, machine: MachineIdentity) -> None:
    backup = Backup.make()
    point = (home / "point").read_text()
    begun = await vault.begin(machine, point)
    held = await vault.has(machine, begun.session.id, backup.ids)
    order = [n for n, is_held in enumerate(held) if is_held]
    order += [n for n, is_held in enumerate(held) if not is_held]
    to_send = [n for n in order if not held[n]]

    async def arrivals() -> AsyncIterator[Arrival]:
        for at in range(0, len(to_send), 4):
            chunks = [backup.content[n] for n in to_send[at : at + 4]]
            yield Arrival(chunks, flush=at % 16 == 12, session=begun.session.id)

    async for durable in vault.put(machine, arrivals()):
        done = sum(held) + durable
        print("held", *order[:done], flush=True)
    record = (home / "record").read_bytes()
    await vault.commit(machine, begun.session.id, begun.session.fence, record)
    print("committed", flush=True)


async def prepare(home: Path) -> None:
    home.mkdir()
    world = World.make(home)
    machine = await world.machine()
    point = an_id("rp")
    begun: Begun = await world.vault.begin(machine.identity, point)
    (home / "record").write_bytes(machine.sign(a_point(machine, Backup.make().ids[-1], begun)))
    (home / "point").write_text(point)
    (home / "authorities.pem").write_bytes(
        chain_pem([world.root.certificate, world.issuing.certificate])
    )
    await world.close()


@dataclass(frozen=True)
class Killed:
    """At which call of which kind a thread, and with it the process, dies."""

    call: str
    number: int

    @property
    def fault(self) -> str:
        """How strace calls it."""
        return f"{self.call}:signal=KILL:when={self.number}"


@dataclass(frozen=True)
class Ran:
    """How a run ended, what it acknowledged, and the calls of its busiest thread by kind."""

    died: bool
    acknowledged: set[int]
    committed: bool
    calls: dict[str, int]


def run(home: Path, fault: str | None = None) -> Ran:
    """Run the backup in a process of its own; `fault` is what strace injects."""
    trace = home / "trace"
    inject = [] if fault is None else ["-e", f"inject={fault}"]
    done = subprocess.run(
        [
            "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}", *inject,
            sys.executable, "-B", "-m", "tests.faults.test_vault_controller", str(home),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert fault is not None or done.returncode == 0, done.stderr
    acknowledged: set[int] = set()
    for line in done.stdout.splitlines():
        if line.startswith("held"):
            acknowledged.update(map(int, line.split()[1:]))
    made: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            made[found[1], found[2]] += 1
    busiest: dict[str, int] = {}
    for (_, call), count in made.items():
        busiest[call] = max(busiest.get(call, 0), count)
    return Ran(done.returncode != 0, acknowledged, "committed" in done.stdout, busiest)


async def run_until_killed(home: Path, kill: Killed) -> Ran:
    """`run`; strace counts by thread, so a call that was never reached is tried earlier."""
    ran = await asyncio.to_thread(run, home, kill.fault)
    while not ran.died:
        assert kill.number > 1, f"no {kill.call} was ever made"
        kill = Killed(kill.call, kill.number // 2)
        shutil.rmtree(home)
        shutil.copytree(home.parent / "prepared", home)
        ran = await asyncio.to_thread(run, home, kill.fault)
    return ran


async def judge(home: Path, acknowledged: set[int], *, committed: bool) -> None:
    """Everything that was acknowledged is there, whole, and nothing is damaged."""
    vault, db, store = open_vault(home)
    machine, backup = the_machine(db), Backup.make()
    wanted = sorted(acknowledged)
    reading = vault.get(machine, "", [backup.ids[n] for n in wanted])
    got = [chunk async for message in reading for chunk in message]
    assert got == [backup.content[n] for n in wanted]
    assert not check(store, db).faults
    points = await vault.list_points(machine, "", 0)
    assert not committed or len(points) == 1
    # What a crash left unindexed is sound, too: a rebuild takes it in and stays clean.
    assert not rebuild(store, db, now=START).problems
    report = check(store, db)
    assert not report.faults
    assert not report.unindexed
    await vault.close()
    await db.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("controller") / "home"
    asyncio.run(prepare(home))
    return home


@pytest.fixture(scope="module")
def calls(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often a whole backup makes each call, in the thread that makes it most."""
    if shutil.which("strace") is None:
        pytest.skip("not run: strace is missing")
    home = tmp_path_factory.mktemp("whole") / "home"
    shutil.copytree(prepared, home)
    ran = run(home)
    assert (ran.died, len(ran.acknowledged), ran.committed) == (False, CHUNKS, True)
    return ran.calls


@pytest.mark.parametrize("sample", range(10))
async def test_what_was_acknowledged_survives_a_kill(
    prepared: Path, calls: dict[str, int], tmp_path: Path, sample: int
) -> None:
    chance = random.Random(SEED + sample)
    call = sorted(calls)[sample % len(calls)]
    kill = Killed(call, chance.randint(1, calls[call]))
    shutil.copytree(prepared, tmp_path / "prepared")
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    ran = await run_until_killed(home, kill)
    await judge(home, ran.acknowledged, committed=ran.committed)
    again = await asyncio.to_thread(run, home) if not ran.committed else ran
    assert again.committed
    await judge(home, set(range(CHUNKS)), committed=True)


@pytest.mark.full
async def test_a_backup_is_finished_however_often_the_controller_dies(
    prepared: Path, calls: dict[str, int], tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    for _ in range(40):
        call = chance.choice(sorted(calls))
        kill = Killed(call, chance.randint(1, calls[call]))
        ran = await asyncio.to_thread(run, home, kill.fault)
        await judge(home, ran.acknowledged, committed=ran.committed)
        if ran.committed:
            return
    assert (await asyncio.to_thread(run, home)).committed


@pytest.mark.parametrize("call", ["fsync:error=EIO:when=3+", "fdatasync:error=EIO:when=3+"])
async def test_a_disk_that_fails_is_never_acknowledged(
    prepared: Path, calls: dict[str, int], tmp_path: Path, call: str
) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    ran = await asyncio.to_thread(run, home, call)
    assert ran.died
    assert not ran.committed
    await judge(home, ran.acknowledged, committed=False)


@pytest.mark.root
async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    prepared: Path, tmp_path: Path
) -> None:
    """Objects and database on one file system that fills up in the middle of a backup."""
    if os.geteuid() != 0:
        pytest.skip("not run: mounting needs root")
    place = tmp_path / "mounted"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("not run: a tmpfs cannot be mounted here")
    try:
        home = place / "home"
        shutil.copytree(prepared, home)
        ballast = home / "ballast"
        free = os.statvfs(home)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 700_000))
        with pytest.raises(SteadError) as refused:
            await run_backup(home)
        assert refused.value.code is Code.STORE_FULL
        ballast.unlink()
        await judge(home, set(), committed=False)
        await run_backup(home)
        await judge(home, set(range(CHUNKS)), committed=True)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_one_flipped_bit_in_the_database_is_refused_or_found(
    prepared: Path, tmp_path: Path
) -> None:
    """Whichever bit it is: never a wrong answer that looks right."""
    whole = tmp_path / "whole"
    shutil.copytree(prepared, whole)
    await run_backup(whole)
    chance = random.Random(SEED)
    backup = Backup.make()
    file = whole / "stead.db"
    content = file.read_bytes()
    sums = whole / "stead.db.sums"
    named = 0
    for identity in chance.sample(backup.ids, 6):
        for start in _places(content, identity):
            broken = bytearray(content)
            broken[start + chance.randrange(32)] ^= 1 << chance.randrange(8)
            file.write_bytes(broken)
            if closed := sums.exists():
                with pytest.raises(DatabaseDamagedError, match="changed since it was closed"):
                    open_vault(whole)
                sums.unlink()  # as after a kill, which leaves none
            assert closed or named
            vault, db, store = open_vault(whole)
            faults = check(store, db).faults
            named += any(fault.chunk == identity for fault in faults)
            await vault.close()
            await db.close()
    assert named >= 6


def _places(content: bytes, wanted: bytes) -> list[int]:
    found = []
    start = content.find(wanted)
    while start >= 0:
        found.append(start)
        start = content.find(wanted, start + 1)
    return found


if __name__ == "__main__":
    asyncio.run(run_backup(Path(sys.argv[1])))
