"""The controller's checkpoints: of what, how often, and never of a log that was edited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, delete, func, insert, select, text, update

from controller import clock
from controller.audit import checkpoints
from controller.audit.chain import Entry
from controller.audit.checkpoints import Checkpoints, Sealer, listed, logs_that_grew, newest
from controller.audit.log import INSTALLATION, append, entries, page_of
from controller.audit.tree import stored_node
from controller.audit.unsigned import Unsigned, unsigned_logs
from controller.audit.wanted import Wanted
from controller.audit.witnesses import Witnesses
from controller.db.database import Database
from controller.db.schema import audit, audit_nodes, tenants
from protocol.checkpoint import open_checkpoint
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId
from protocol.merkle import EMPTY_ROOT, Frontier, is_consistent, is_included, prove_inclusion
from tests.unit.audit.signing import AT, TENANT, Signers

SIGNERS = Signers.new()
MACHINE = MachineIdentity(TenantId(TENANT), MachineId("mc_" + "0" * 26))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path}/stead.db", create=True)
    row = {"id": TENANT, "name": "a", "dedup_scope": "tenant", "created_at": AT}
    database.write_now(lambda c: c.execute(insert(tenants), row).rowcount)
    yield database
    database.close_now()


@pytest.fixture
def signing(db: Database) -> Checkpoints:
    der = SIGNERS.issuing.certificate.public_bytes(Encoding.DER)
    return Checkpoints(db, lambda: Sealer(SIGNERS.issuing.key, der))


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: AT)


def grow(db: Database, count: int, log: str = TENANT) -> None:
    def act(connection: Connection) -> None:
        for number in range(count):
            append(connection, log, "operator/ann", "seen", {"n": number}, AT)

    db.write_now(act)


def root_now(db: Database, size: int) -> bytes:
    tree = Frontier()
    for one in db.read_now(lambda c: entries(c, TENANT, limit=size)):
        tree.add(one.hash)
    return tree.root()


async def test_a_checkpoint_is_of_all_that_is_there(db: Database, signing: Checkpoints) -> None:
    assert await signing.make(TENANT) is None
    for count in (1, 2, 300, 700):
        grow(db, count)
        made = await signing.make(TENANT)
        assert made is not None
        assert open_checkpoint(made.signed, SIGNERS.certificate) == made.checkpoint
        assert made.checkpoint.root == root_now(db, made.checkpoint.size)
        assert await signing.make(TENANT) == made
    sizes = [one.checkpoint.size for one in db.read_now(lambda c: listed(c, TENANT))]
    assert sizes == [1, 3, 303, 1003]
    assert db.read_now(lambda c: newest(c, TENANT)) == made


async def test_proofs_of_a_long_log_hold(db: Database, signing: Checkpoints) -> None:
    kept = []
    for count in (255, 2, 2000, 1):
        grow(db, count)
        one = await signing.make(TENANT)
        assert one is not None
        kept.append(one.checkpoint)
    last = kept[-1]
    for first in kept[:-1]:
        news = await Witnesses(db).news(MACHINE, {TENANT: first.size})
        assert news[TENANT].size == last.size
        proof = news[TENANT].proof
        assert is_consistent(first.size, first.root, last.size, last.root, proof)
    assert (await Witnesses(db).news(MACHINE, {TENANT: last.size + 1}))[TENANT].proof == ()
    for number in (1, 256, 257, 2049, last.size):
        made = db.read_now(lambda c, n=number: entries(c, TENANT, after=n - 1, limit=1))[0]  # type: ignore[misc]
        steps = db.read_now(
            lambda c, n=number: prove_inclusion(n - 1, last.size, stored_node(c, TENANT))  # type: ignore[misc]
        )
        assert is_included(made.hash, number - 1, last.size, steps, last.root)


async def test_a_log_that_was_there_before_is_signed_in_short_acts(
    db: Database, signing: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FILL_AT_ONCE", 1)
    grow(db, 1300)
    made = await signing.make(TENANT)
    assert made is not None
    assert made.checkpoint.root == root_now(db, 1300)
    count = select(func.count()).select_from(audit_nodes)
    assert db.read_now(lambda c: c.scalar(count)) == 5


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE audit SET body = '{}' WHERE seq = 5",
        "UPDATE audit SET at = at + 1 WHERE seq = 4",
        "DELETE FROM audit WHERE seq = 5",
        "DELETE FROM audit WHERE seq > 2",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 6",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 2",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 2",
    ],
)
async def test_a_log_that_was_edited_is_not_signed(
    db: Database, signing: Checkpoints, edit: str
) -> None:
    grow(db, 3)
    before = await signing.make(TENANT)
    grow(db, 3)
    db.write_now(lambda c: c.execute(text(edit)).rowcount)
    assert not signing.rests(TENANT)
    assert await signing.make(TENANT) == before
    assert db.read_now(lambda c: newest(c, TENANT)) == before
    assert signing.rests(TENANT)


async def test_a_tree_with_a_gap_is_said_to_be_damaged(db: Database, signing: Checkpoints) -> None:
    grow(db, 600)
    made = await signing.make(TENANT)
    assert made is not None
    db.write_now(lambda c: c.execute(delete(audit_nodes)).rowcount)
    with pytest.raises(SteadError, match="lacks entries or nodes"):
        await Witnesses(db).news(MACHINE, {TENANT: 3})
    # The next checkpoint finds that the entries are those that were signed.
    grow(db, 1)
    again = await signing.make(TENANT)
    assert again is not None
    assert again.checkpoint.root == root_now(db, 601)
    assert (await Witnesses(db).news(MACHINE, {TENANT: 3}))[TENANT].proof


@pytest.mark.parametrize("number", [0, 1])
async def test_a_tree_with_another_hash_is_made_anew(
    db: Database, signing: Checkpoints, number: int
) -> None:
    grow(db, 600)
    await signing.make(TENANT)
    altered = update(audit_nodes).where(audit_nodes.c.number == number).values(hash=bytes(32))
    db.write_now(lambda c: c.execute(altered).rowcount)
    grow(db, 1)
    made = await signing.make(TENANT)
    assert made is not None
    assert made.checkpoint.root == root_now(db, 601)


async def test_an_entry_put_in_the_place_of_the_last_one_is_named(
    db: Database, signing: Checkpoints
) -> None:
    grow(db, 3)
    await signing.make(TENANT)
    db.write_now(lambda c: c.execute(text("DELETE FROM audit WHERE seq = 3")).rowcount)
    db.write_now(lambda c: append(c, TENANT, "operator/eve", "lied", {}, AT))
    await signing.make(TENANT)
    assert signing.fault_of(TENANT) == "entry 3 is not the one that was signed"


async def test_what_is_wrong_with_one_log_keeps_no_other_from_being_signed(
    db: Database, signing: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(db, 3, INSTALLATION)
    await signing.make(INSTALLATION)
    grow(db, 3, INSTALLATION)
    grow(db, 3)
    real, tried = Checkpoints.make, asyncio.Event()

    async def make(self: Checkpoints, log_id: str) -> object:
        """The installation's log, which is looked at first, cannot be read."""
        if log_id == INSTALLATION:
            raise SteadError("this page of the database is gone", code=Code.DATABASE_DAMAGED)
        made = await real(self, log_id)
        tried.set()
        return made

    monkeypatch.setattr(Checkpoints, "make", make)
    signing.after = timedelta()
    running = asyncio.create_task(signing.run_forever())
    async with asyncio.timeout(60):
        await tried.wait()
    running.cancel()
    assert signing.fault_of(INSTALLATION) == "this page of the database is gone"
    found = db.read_now(lambda c: newest(c, TENANT))
    assert found is not None
    assert found.checkpoint.size == 3


async def test_logs_that_are_late_or_cannot_be_signed_are_named(
    db: Database, signing: Checkpoints
) -> None:
    def late(minutes: int, names: dict[str, str] | None = None) -> list[Unsigned]:
        names = {TENANT: "acme", INSTALLATION: "installation"} if names is None else names
        now = AT + timedelta(minutes=minutes)
        return db.read_now(lambda c: unsigned_logs(c, names, signing.fault_of, now))

    assert late(60) == []
    grow(db, 2)
    await signing.make(TENANT)
    assert late(60) == []
    grow(db, 3)
    assert late(1) == []
    assert late(10) == [Unsigned("acme", 5, 2, AT, "")]
    assert late(10, {INSTALLATION: "installation"}) == []
    # A clock that was set back far makes no entry early for ever.
    assert late(-60 * 24 * 30) == [Unsigned("acme", 5, 2, AT, "")]
    db.write_now(lambda c: c.execute(text("UPDATE audit SET body = '[]' WHERE seq = 4")).rowcount)
    await signing.make(TENANT)
    assert late(1) == [Unsigned("acme", 5, 2, AT, "entry 4: the entry was altered")]
    db.write_now(lambda c: c.execute(text("DELETE FROM audit WHERE seq > 1")).rowcount)
    assert [(one.entries, one.signed, one.since) for one in late(1)] == [(1, 2, None)]


def test_a_page_ends_where_it_gets_too_large(db: Database) -> None:
    for number in range(6):
        body = {"text": "x" * 1000 if number else "x" * 9000}
        db.write_now(lambda c, b=body: append(c, TENANT, "operator/ann", "seen", b, AT))  # type: ignore[misc]

    def page(after: int, **more: Any) -> tuple[list[int], bool]:
        found = db.read_now(
            lambda c: page_of(c, TENANT, after=after, limit=4, most_bytes=3500, **more)
        )
        return [one.seq for one in found.entries], found.cut

    assert [page(after) for after in (0, 1, 4, 6)] == [
        ([1], True),
        ([2, 3, 4], True),
        ([5, 6], False),
        ([], False),
    ]
    assert page(0, newest=True) == ([4, 5, 6], True)
    assert page(0, newest=True, before=4) == ([2, 3], True)
    assert page(0, newest=True, before=2) == ([1], False)


async def test_only_logs_that_grew_are_looked_at(db: Database, signing: Checkpoints) -> None:
    assert db.read_now(logs_that_grew) == []
    grow(db, 2)
    grow(db, 1, INSTALLATION)
    assert sorted(db.read_now(logs_that_grew)) == [(INSTALLATION, 1, 0), (TENANT, 2, 0)]
    await signing.make(TENANT)
    assert db.read_now(logs_that_grew) == [(INSTALLATION, 1, 0)]
    db.write_now(lambda c: c.execute(delete(audit).where(audit.c.tenant_id == TENANT)).rowcount)
    assert (TENANT, 0, 2) in db.read_now(logs_that_grew)


def test_no_entries_have_the_published_root() -> None:
    assert EMPTY_ROOT.hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(since=AT),
        Wanted(until=AT),
        Wanted(event="seen"),
        Wanted(event="lost"),
        Wanted(actor="ann"),
        Wanted(actor="operator/ann"),
        Wanted(actor="an%"),
        Wanted(actor="ANN"),
        Wanted(actor="mc_1"),
        Wanted(actor="controller"),
        Wanted(machine="mc_1"),
        Wanted(machine="mc_"),
    ],
    ids=lambda wanted: str(wanted.in_words()),
)
def test_the_database_chooses_as_the_pure_filter_does(db: Database, wanted: Wanted) -> None:
    def act(connection: Connection) -> list[Entry]:
        return [
            append(connection, TENANT, "operator/ann", "seen", {"machine": "mc_1"}, AT),
            append(connection, TENANT, "machine/mc_1", "lost", {}, AT),
            append(connection, TENANT, "controller", "lost", {"machine": "mc_12"}, AT),
        ]

    written = db.write_now(act)
    found = db.read_now(lambda c: page_of(c, TENANT, limit=9, wanted=wanted)).entries
    assert found == [one for one in written if wanted.fits(one)]
    last = db.read_now(lambda c: page_of(c, TENANT, limit=1, wanted=wanted, newest=True))
    assert last.entries == found[-1:]
