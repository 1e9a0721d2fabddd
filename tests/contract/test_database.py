"""What the database promises to every part of the controller, whichever engine keeps it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError, StatementError

from controller.db.database import Database
from controller.db.errors import DatabaseClosedError
from controller.db.schema import chunks, installation, machines, packs, tenants
from controller.db.upsert import upsert

AT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path}/stead.db", create=True)
    yield database
    await database.close()


def put(connection: Connection, key: str, value: bytes = b"") -> None:
    connection.execute(insert(installation).values(key=key, value=value))


def keys(connection: Connection) -> set[str]:
    return set(connection.scalars(select(installation.c.key)))


def add_tenant(connection: Connection, tenant: str) -> None:
    connection.execute(
        insert(tenants).values(id=tenant, name=tenant, dedup_scope="tenant", created_at=AT)
    )


async def test_a_read_sees_every_act_that_returned_before(db: Database) -> None:
    for number in range(20):
        await db.write(lambda c, n=number: put(c, str(n)))  # type: ignore[misc]
        assert str(number) in await db.read(keys)


async def test_an_act_that_raises_undoes_itself_alone(db: Database) -> None:
    hold = threading.Event()

    def fail(connection: Connection) -> None:
        put(connection, "bad")
        raise LookupError("mine")

    def wait(connection: Connection) -> None:
        put(connection, "first")
        hold.wait()

    first = asyncio.ensure_future(db.write(wait))
    rest = [
        asyncio.ensure_future(db.write(act))
        for act in (lambda c: put(c, "a"), fail, lambda c: put(c, "b"), lambda c: put(c, "a"))
    ]
    await asyncio.sleep(0)
    hold.set()
    await first
    outcomes = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        LookupError,
        type(None),
        IntegrityError,
    ]
    assert await db.read(keys) == {"first", "a", "b"}


async def test_an_act_returns_its_value(db: Database) -> None:
    assert await db.write(lambda c: len(keys(c))) == 0
    assert db.write_now(lambda c: 5) == 5
    assert db.read_now(keys) == set()


async def test_acts_run_one_after_the_other(db: Database) -> None:
    def count(connection: Connection) -> int:
        number = len(keys(connection))
        put(connection, str(number))
        return number

    counted = await asyncio.gather(*(db.write(count) for _ in range(200)))
    assert sorted(counted) == list(range(200))


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(Exception, match="readonly"):
        await db.read(lambda c: put(c, "a"))
    assert await db.read(keys) == set()


async def test_an_act_that_commits_by_itself_fails(db: Database) -> None:
    with pytest.raises(RuntimeError, match="commit"):
        await db.write(lambda c: c.commit())
    with pytest.raises(RuntimeError, match="commit"):
        await db.write(lambda c: c.rollback())
    await db.write(lambda c: put(c, "a"))
    assert await db.read(keys) == {"a"}


async def test_an_act_that_waits_for_another_is_told_so(db: Database) -> None:
    with pytest.raises(RuntimeError, match="wait"):
        await db.write(lambda c: db.write_now(lambda c: None))


async def test_what_is_queued_is_finished_before_closing(db: Database) -> None:
    acts = [asyncio.ensure_future(db.write(lambda c, n=n: put(c, str(n)))) for n in range(50)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await db.close()
    await asyncio.gather(*acts)
    with pytest.raises(DatabaseClosedError):
        await db.write(keys)


async def test_a_cancelled_caller_stops_nobody(db: Database) -> None:
    begun, hold = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        begun.set()
        hold.wait()

    first = asyncio.ensure_future(db.write(wait))
    # From here on the writer has taken its turn, and who comes now waits for the next.
    await asyncio.to_thread(begun.wait)
    gone = asyncio.ensure_future(db.write(lambda c: put(c, "gone")))
    await asyncio.sleep(0)
    gone.cancel()
    after = asyncio.ensure_future(db.write(lambda c: put(c, "after")))
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, after)
    assert await db.read(keys) == {"after"}


async def test_times_keep_their_microsecond_and_come_back_in_utc(db: Database) -> None:
    local = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    await db.write(
        lambda c: c.execute(
            insert(tenants).values(id="tn_1", name="a", dedup_scope="tenant", created_at=local)
        ).close()
    )
    found = await db.read(lambda c: c.scalar(select(tenants.c.created_at)))
    assert found == AT
    assert found is not None
    assert found.tzinfo is UTC
    assert (
        await db.read(
            lambda c: c.scalars(select(tenants.c.id).where(tenants.c.created_at < AT)).all()
        )
        == []
    )


async def test_a_time_without_a_zone_is_refused(db: Database) -> None:
    naive = AT.replace(tzinfo=None)
    with pytest.raises(StatementError, match="no time zone"):
        await db.write(
            lambda c: c.execute(
                insert(tenants).values(id="t", name="a", dedup_scope="tenant", created_at=naive)
            ).close()
        )


async def test_rows_of_unknown_tenants_are_refused(db: Database) -> None:
    machine = {
        "id": "mc_1",
        "tenant_id": "tn_unknown",
        "name": "web-01",
        "state": "active",
        "public_key_hash": b"k",
        "hostname": "web-01",
        "agent_version": "0.1.0",
        "enrolled_at": AT,
    }
    with pytest.raises(IntegrityError):
        await db.write(lambda c: c.execute(insert(machines), machine).close())


async def test_a_chunk_lies_in_a_pack_of_its_own_tenant(db: Database) -> None:
    def prepare(connection: Connection) -> int:
        add_tenant(connection, "tn_1")
        add_tenant(connection, "tn_2")
        made = connection.execute(
            insert(packs).values(id="ab", tenant_id="tn_1", kind="data", length=10, created_at=AT)
        )
        return int(made.inserted_primary_key[0])  # type: ignore[index]

    number = await db.write(prepare)

    def add(connection: Connection, tenant: str) -> None:
        connection.execute(
            insert(chunks).values(
                tenant_id=tenant, id=b"c", pack_number=number, offset=0, length=10, kind=1
            )
        )

    await db.write(lambda c: add(c, "tn_1"))
    with pytest.raises(IntegrityError):
        await db.write(lambda c: add(c, "tn_2"))


async def test_an_upsert_keeps_or_replaces(db: Database) -> None:
    def act(connection: Connection) -> list[bytes | None]:
        put(connection, "a", b"1")
        row = {"key": "a", "value": b"2"}
        connection.execute(upsert(connection, installation).on_conflict_do_nothing(), row)
        kept = connection.scalar(select(installation.c.value))
        replace = upsert(connection, installation)
        connection.execute(
            replace.on_conflict_do_update(
                index_elements=["key"], set_={"value": replace.excluded.value}
            ),
            row,
        )
        return [kept, connection.scalar(select(installation.c.value))]

    assert await db.write(act) == [b"1", b"2"]
