"""How fast the controller's storage is: `python -m bench.database [directory]`.

Every write counted here was on the disk when it was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, insert, select, text

from controller.audit.log import append
from controller.db.database import Database
from controller.db.schema import chunks, installation, packs, tenants
from controller.db.upsert import upsert
from controller.store.local import LocalStore

AT = datetime(2026, 5, 1, tzinfo=UTC)
CHUNK_BATCHES = 200


def say(what: str, amount: float, unit: str) -> None:
    print(f"{what:58} {amount:12,.1f} {unit}", flush=True)


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def add_row(connection: Connection) -> None:
    row = {"key": os.urandom(12).hex(), "value": b"x" * 100}
    connection.execute(insert(installation), row)


def add_row_with_audit(connection: Connection) -> None:
    add_row(connection)
    append(connection, "", "operator/ada", "row_added", {"key": "value"}, AT)


async def writes(db: Database) -> None:
    for name, act in (("one row", add_row), ("one row, one audit entry", add_row_with_audit)):
        for callers in (1, 64):
            each = 1000 if callers == 1 else 100

            async def caller(act: Callable[[Connection], None] = act, each: int = each) -> None:
                for _ in range(each):
                    await db.write(act)

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(callers)))
            took = time.perf_counter() - began
            say(f"durable acts of {name}, {callers} callers", callers * each / took, "/s")
    began = time.perf_counter()
    for _ in range(1000):
        await db.read(lambda c: c.scalar(select(installation.c.value).limit(1)))
    say("reads of one row, one caller", 1000 / (time.perf_counter() - began), "/s")


def chunk_rows(pack: int, ids: list[bytes]) -> list[dict[str, object]]:
    return [
        {
            "tenant_id": "tn_01k00000000000000000000000",
            "id": chunk,
            "pack_number": pack,
            "offset": place * 8192,
            "length": 8192,
            "kind": 1,
        }
        for place, chunk in enumerate(ids)
    ]


def chunk_index(db: Database, path: Path) -> None:
    tenant = "tn_01k00000000000000000000000"

    def tenant_act(connection: Connection) -> None:
        row = {"id": tenant, "name": "a", "dedup_scope": "tenant", "created_at": AT}
        connection.execute(insert(tenants), row)

    db.write_now(tenant_act)
    known: list[bytes] = []
    took = 0.0
    for number in range(1, CHUNK_BATCHES + 1):
        ids = [os.urandom(32) for _ in range(1000)]
        known += ids[:10]

        def act(connection: Connection, ids: list[bytes] = ids, number: int = number) -> None:
            pack = {"id": str(number), "tenant_id": tenant, "kind": "data", "length": 1}
            connection.execute(insert(packs), {**pack, "number": number, "created_at": AT})
            statement = upsert(connection, chunks).on_conflict_do_nothing()
            connection.execute(statement, chunk_rows(number, ids))

        took += timed(lambda act=act: db.write_now(act))  # type: ignore[misc]
    say("1,000 chunks inserted and durable", took / CHUNK_BATCHES * 1000, "ms")
    asked = known[:500] + [os.urandom(32) for _ in range(500)]

    def core(connection: Connection) -> int:
        where = (chunks.c.tenant_id == tenant, chunks.c.id.in_(asked))
        return len(connection.execute(select(chunks.c.id).where(*where)).all())

    def plain(connection: Connection) -> int:
        marks = ",".join("?" * len(asked))
        statement = f"SELECT id FROM chunks WHERE tenant_id = ? AND id IN ({marks})"
        return len(connection.exec_driver_sql(statement, (tenant, *asked)).all())

    for name, look_up in (("Core", core), ("driver SQL", plain)):
        assert db.read_now(look_up) == 500
        took = min(timed(lambda f=look_up: db.read_now(f)) for _ in range(20))  # type: ignore[misc]
        say(f"1,000 ids looked up by IN, {name}", took * 1000, "ms")
    db.write_now(lambda c: c.execute(text("PRAGMA optimize")).close())
    say("file and log, a chunk", path.stat().st_size / CHUNK_BATCHES / 1000, "bytes")


def objects(root: Path) -> None:
    store = LocalStore.open(root)
    body = os.urandom(32 << 20)
    took = [timed(lambda n=n: store.put(f"tn/packs/{n}", [body])) for n in range(5)]  # type: ignore[misc]
    say("a pack of 32 MiB put, durable", min(took) * 1000, "ms")
    took = [timed(lambda n=n: store.put(f"tn/points/{n}", [b"x" * 2000])) for n in range(200)]  # type: ignore[misc]
    say("objects of 2 KB put, durable, one thread", 200 / sum(took), "/s")
    seconds = timed(lambda: [store.get("tn/packs/0", n * 8192, 8192) for n in range(4000)])
    say("ranged reads of 8 KiB from one pack", 4000 / seconds, "/s")
    with (root / "tn/packs/0").open("rb") as file:
        seconds = timed(lambda: [os.pread(file.fileno(), 8192, n * 8192) for n in range(4000)])
    say("the same by pread alone, file kept open", 4000 / seconds, "/s")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as folder:
        path = Path(folder) / "stead.db"
        db = Database.open(f"sqlite:///{path}", create=True)
        asyncio.run(writes(db))
        chunk_index(db, path)
        db.close_now()
        say("the database opened and checked", timed(lambda: _reopen(path)) * 1000, "ms")
        objects(Path(folder) / "objects")


def _reopen(path: Path) -> None:
    Database.open(f"sqlite:///{path}").close_now()


if __name__ == "__main__":
    main()
