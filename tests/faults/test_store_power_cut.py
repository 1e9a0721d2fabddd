"""What the controller acknowledged survives a power cut and a full disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from controller.db.database import Database
from controller.db.errors import DatabaseFullError
from controller.db.schema import installation
from controller.store.local import LocalStore
from controller.store.store import StoreFullError
from tests.faults.disk import Disk, need_disks

pytestmark = pytest.mark.root


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    need_disks()
    made: list[Disk] = []

    def make(size: str) -> Disk:
        made.append(Disk(tmp_path, size))
        return made[-1]

    yield make
    for disk in made:
        disk.unmount()


def run_until_cut(disk: Disk, program: str) -> list[str]:
    """Run a program on the disk, cut the power after its last promise, and give its lines.

    The program prints what it was promised, then "ready"; it is killed after the cut.
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, str(disk.mounted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            if line == "ready\n":
                break
            lines.append(line.strip())
        disk.cut()
        process.kill()
    disk.remount()
    return lines


PUTS = """
import hashlib, os, sys
from pathlib import Path
from controller.store.local import LocalStore
root = Path(sys.argv[1]) / "objects"
store = LocalStore.open(root)
for number in range(25):
    body = os.urandom(number * 5000)
    key = f"tn_1/packs/{number % 7}/{number}"
    store.put(key, [body[:3000], body[3000:]])
    print(key, hashlib.sha256(body).hexdigest(), flush=True)
def pieces():
    yield b"half an object"
    print("ready", flush=True)
    sys.stdin.read()
store.put("tn_1/packs/0/never", pieces())
"""


def test_an_acknowledged_object_survives_a_power_cut(disk_of: Callable[[str], Disk]) -> None:
    disk = disk_of("32M")
    promised = run_until_cut(disk, PUTS)
    assert len(promised) == 25
    store = LocalStore.open(disk.mounted / "objects")
    for line in promised:
        key, digest = line.split()
        assert hashlib.sha256(store.get(key)).hexdigest() == digest
    assert not store.exists("tn_1/packs/0/never")
    assert len(list(store.list())) == 25
    assert list((disk.mounted / "objects/.temporary").iterdir()) == []


UNSYNCED = (
    """
import os, sys
real = os.fsync
os.fsync = lambda descriptor: None
"""
    + PUTS
)


def test_the_power_cut_does_lose_what_was_not_fsynced(disk_of: Callable[[str], Disk]) -> None:
    disk = disk_of("32M")
    promised = run_until_cut(disk, UNSYNCED)
    store = LocalStore.open(disk.mounted / "objects")
    kept = [line for line in promised if store.exists(line.split()[0])]
    assert kept != promised


DELETES = """
import sys
from pathlib import Path
from controller.store.local import LocalStore
store = LocalStore.open(Path(sys.argv[1]) / "objects")
for name in ("kept", "deleted", "damaged"):
    store.put(f"a/{name}", [name.encode()])
store.delete("a/deleted")
store.quarantine("a/damaged", "the hash differs")
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_was_deleted_or_put_aside_stays_so(disk_of: Callable[[str], Disk]) -> None:
    disk = disk_of("32M")
    run_until_cut(disk, DELETES)
    store = LocalStore.open(disk.mounted / "objects")
    assert list(store.list()) == [("a/kept", 4)]
    aside = sorted((disk.mounted / "objects/.quarantine/a").iterdir())
    assert [path.read_bytes() for path in aside] == [b"damaged", b"the hash differs\n"]


WRITES = """
import asyncio, sys
from sqlalchemy import insert
from controller.db.database import Database
from controller.db.schema import installation
async def main():
    db = Database.open(f"sqlite:///{sys.argv[1]}/state/stead.db", create=True)
    async def caller(name):
        for number in range(40):
            key = f"{name}-{number}"
            row = {"key": key, "value": b"v" * 900}
            await db.write(lambda c: c.execute(insert(installation), row).close())
            print(key, flush=True)
    await asyncio.gather(*map(caller, range(16)))
    print("ready", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


def test_an_acknowledged_row_survives_a_power_cut(disk_of: Callable[[str], Disk]) -> None:
    disk = disk_of("64M")
    promised = run_until_cut(disk, WRITES)
    assert len(promised) == 640
    db = Database.open(f"sqlite:///{disk.mounted}/state/stead.db")
    try:
        assert db.read_now(lambda c: set(c.scalars(select(installation.c.key)))) == set(promised)
    finally:
        db.close_now()


def test_a_full_disk_refuses_an_object_whole_and_takes_it_once_there_is_room(
    disk_of: Callable[[str], Disk],
) -> None:
    disk = disk_of("16M")
    store = LocalStore.open(disk.mounted / "objects")
    kept: dict[str, bytes] = {}

    def fill() -> None:
        for number in range(100):
            body = os.urandom(1 << 20)
            store.put(f"a/{number}", [body])
            kept[f"a/{number}"] = body

    with pytest.raises(StoreFullError) as caught:
        fill()
    assert caught.value.needed_bytes >= 1 << 20
    assert caught.value.free_bytes < 1 << 20
    assert list((disk.mounted / "objects/.temporary").iterdir()) == []
    assert {key: store.get(key) for key, _ in store.list()} == kept
    freed, failed = "a/0", f"a/{len(kept)}"
    store.delete(freed)
    assert store.put(failed, [kept[freed]]) is True
    assert store.get(failed) == kept[freed]


def test_a_full_disk_refuses_an_act_and_keeps_those_before(
    disk_of: Callable[[str], Disk],
) -> None:
    disk = disk_of("16M")
    db = Database.open(f"sqlite:///{disk.mounted}/stead.db", create=True)
    filler = disk.mounted / "filler"
    filler.write_bytes(bytes(8 << 20))
    done = 0

    def act(connection: Connection) -> None:
        connection.execute(insert(installation).values(key=str(done), value=bytes(100_000)))

    def rows(connection: Connection) -> int | None:
        return connection.scalar(select(func.count()).select_from(installation))

    def fill() -> None:
        nonlocal done
        while done < 1000:
            db.write_now(act)
            done += 1

    try:
        with pytest.raises(DatabaseFullError, match="make room"):
            fill()
        assert db.read_now(rows) == done
        filler.unlink()
        db.write_now(act)
        assert db.read_now(rows) == done + 1
    finally:
        db.close_now()
    Database.open(f"sqlite:///{disk.mounted}/stead.db").close_now()
