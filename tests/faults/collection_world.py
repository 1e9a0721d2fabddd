"""A vault that a process of its own collects, to be killed, failed or cut off at any call.

Four restore points share chunks and two are forgotten, so a collection condemns, drops
packs and writes others anew. The ledger beside the vault says which chunks the two kept
ones need, as they were acknowledged. `judge` holds the vault against it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from sqlalchemy import select

from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.schema import chunks, machines
from controller.store.local import LocalStore
from controller.vault import index
from controller.vault.check import check
from controller.vault.collect.condemn import Collected, Step, Terms
from controller.vault.forget import forgotten
from controller.vault.vault import Vault
from protocol.errors import SteadError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId
from protocol.tls import chain_pem
from protocol.vault.chunk import ChunkId, chunk_id
from tests.unit.controller_vault.world import START, World, an_id, data_chunk, tree_chunk

KILLED_AT = ("fsync", "fdatasync", "link", "linkat", "unlink", "rename", "write", "pwrite64")
"""What changes a disk. strace counts by thread: the database writes in one of its own."""
PACK_BYTES = 32 * 1024
SEED = 20261126
LATER = START + timedelta(days=1)
NOTHING = timedelta()
TERMS = Terms(undo=NOTHING, grace=NOTHING, young=NOTHING, patience=NOTHING, worth=0.9)
REFUSED = 3
"""How the process ends after an error that somebody planned for."""
DIED = frozenset({-9, 137})
"""How it ends when it is killed."""


@dataclass(frozen=True)
class Opened:
    """The parts of a controller that a collection needs."""

    vault: Vault
    db: Database
    store: LocalStore
    machine: MachineIdentity


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Opened]:
    """What `stead controller serve` opens, and closes however it ends."""
    root, issuing = x509.load_pem_x509_certificates((home / "authorities.pem").read_bytes())
    db = Database.open(f"sqlite:///{home}/stead.db")
    try:
        store = LocalStore.open(home / "objects")
        vault = Vault(
            store,
            db,
            Trust(root, (issuing,)),
            now=lambda: LATER,
            floor_bytes=0,
            pack_bytes=PACK_BYTES,
            terms=TERMS,
        )
        try:
            tenant, machine = db.read_now(
                lambda c: c.execute(select(machines.c.tenant_id, machines.c.id)).one()
            )
            yield Opened(vault, db, store, MachineIdentity(TenantId(tenant), MachineId(machine)))
        finally:
            await vault.close()
    finally:
        await db.close()


async def collect(home: Path, told: Callable[[Step], None] = lambda _step: None) -> Collected:
    """Collect twice, since the second one sweeps what the first condemned."""
    done = Collected()
    async with opened(home) as one:
        for _ in range(2):
            done = Collected()
            for step in one.vault.collector.run(one.machine.tenant, done):
                told(step)
    return done


async def prepare(home: Path) -> None:
    """Make the vault and the ledger; see the module."""
    home.mkdir(parents=True)
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
class Fault:
    """At which call of which kind, by a thread, what happens: KILL, EIO or ENOSPC.

    A disk that failed or is full once stays so, but for `write`: a process tells its
    troubles by it as well.
    """

    call: str
    number: int
    how: str = "KILL"

    @property
    def inject(self) -> str:
        """How strace calls it."""
        if self.how == "KILL":
            return f"{self.call}:signal=KILL:when={self.number}"
        on = "" if self.call == "write" else "+"
        return f"{self.call}:error={self.how}:when={self.number}{on}"


@dataclass(frozen=True)
class Ran:
    """How a process that collects ended, and what strace saw of it.

    `calls` are those of its busiest thread by kind; `is_struck`, whether the fault came to pass.
    """

    code: int
    calls: dict[str, int]
    is_struck: bool

    @property
    def was_killed(self) -> bool:
        """Whether it died of the fault."""
        return self.code in DIED


def run(home: Path, fault: Fault | None) -> Ran:
    """Collect in a process of its own under strace. It ends well, refuses, or is killed."""
    calls = (*KILLED_AT, "pread64") if fault is None else (fault.call,)
    inject = [] if fault is None else ["-e", f"inject={fault.inject}"]
    # Not beside the vault: its disk may fail, too.
    with tempfile.TemporaryDirectory() as place:
        trace = Path(place) / "trace"
        done = subprocess.run(
            [
                "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(calls)}", *inject,
                sys.executable, "-B", "-m", "tests.faults.collection_world", str(home),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )  # fmt: skip
        seen = trace.read_text(errors="replace")
    wanted = {0} if fault is None else {0, REFUSED, *DIED}
    assert done.returncode in wanted, (fault, done.returncode, done.stderr)
    return Ran(done.returncode, _calls(seen), "(INJECTED)" in seen or done.returncode in DIED)


def _calls(trace: str) -> dict[str, int]:
    made: Counter[tuple[str, str]] = Counter()
    for line in trace.splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            made[found[1], found[2]] += 1
    busiest: dict[str, int] = {}
    for (_, call), count in made.items():
        busiest[call] = max(busiest.get(call, 0), count)
    return busiest


@dataclass
class Tally:
    """The counts of a test of faults; the last two must be 0."""

    tried: int = 0
    struck: int = 0
    lost: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        return (
            f"points tried {self.tried}, struck {self.struck}, "
            f"acknowledged and lost {self.lost}, silently wrong {self.wrong}"
        )


async def judge(home: Path, tally: Tally) -> None:
    """Read every kept restore point as a machine does, and check all that is stored.

    Lost is what cannot be read though it was acknowledged, or is said to be held. Wrong
    is what is given with other bytes.
    """
    async with opened(home) as one:
        needed = {
            ChunkId(bytes.fromhex(name))
            for names in json.loads((home / "kept.json").read_text()).values()
            for name in names
        }
        tenant = one.machine.tenant
        stored = one.db.read_now(lambda c: [ChunkId(n) for n in c.scalars(select(chunks.c.id))])
        held = one.db.read_now(partial(index.held, tenant=tenant, ids=stored))
        tally.lost += len(needed - held)
        for identity in needed | held:
            try:
                given = [c async for m in one.vault.get(one.machine, "", [identity]) for c in m]
            except SteadError:
                tally.lost += 1
                continue
            tally.wrong += [chunk_id(chunk) for chunk in given] != [identity]
        assert not check(one.store, one.db).faults


def stored_bytes(home: Path) -> int:
    """What the objects take."""
    return sum(size for _, size in LocalStore.open(home / "objects").list())


async def finish(home: Path, tally: Tally, most_bytes: int) -> None:
    """Judge, let another collection finish the work, and judge again."""
    await judge(home, tally)
    await collect(home)
    await judge(home, tally)
    assert stored_bytes(home) <= most_bytes
    assert not list(home.glob("*.scratch*"))


def _main(home: Path, *, stepwise: bool) -> int:
    def told(step: Step) -> None:
        if stepwise:
            print(step.phase, flush=True)
            sys.stdin.readline()

    try:
        asyncio.run(collect(home, told))
    except SteadError as error:
        print(error.code, error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), stepwise="--stepwise" in sys.argv))
