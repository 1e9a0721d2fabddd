"""The audit log shares the fate of the act it records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, text

from controller.audit.chain import EMPTY, Broken, Verified, entry_hash, verify
from controller.audit.log import INSTALLATION, append, entries, head
from controller.db.database import Database
from controller.db.schema import installation

AT = datetime(2026, 5, 1, 12, 0, 0, 7, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path}/stead.db", create=True)
    yield database
    database.close_now()


def test_each_tenant_has_a_chain_of_its_own(db: Database) -> None:
    for tenant in (INSTALLATION, "tn_1", "tn_1", INSTALLATION, "tn_1"):
        db.write_now(lambda c, t=tenant: append(c, t, "ada", "token_made", {"b": 1, "a": "ü"}, AT))  # type: ignore[misc]
    for tenant, count in ((INSTALLATION, 2), ("tn_1", 3), ("tn_2", 0)):
        found = db.read_now(lambda c, t=tenant: entries(c, t))  # type: ignore[misc]
        assert [entry.seq for entry in found] == list(range(1, count + 1))
        expected = db.read_now(lambda c, t=tenant: head(c, t))  # type: ignore[misc]
        assert verify(found, tenant, expected=expected) == Verified(expected)
    assert found == []
    assert expected == EMPTY


def test_an_entry_comes_back_as_it_was_written(db: Database) -> None:
    written = db.write_now(
        lambda c: append(c, "tn_1", "ada", "token_made", {"b": [1], "a": None}, AT)
    )
    assert db.read_now(lambda c: entries(c, "tn_1")) == [written]
    assert written.body == '{"a":null,"b":[1]}'


def test_pages_join_without_gap(db: Database) -> None:
    for number in range(5):
        db.write_now(lambda c, n=number: append(c, "tn_1", "ada", "seen", {"n": n}, AT))  # type: ignore[misc]
    first = db.read_now(lambda c: entries(c, "tn_1", limit=2))
    middle = verify(first, "tn_1")
    assert isinstance(middle, Verified)
    rest = db.read_now(lambda c: entries(c, "tn_1", after=middle.head.seq))
    assert verify(rest, "tn_1", after=middle.head) == Verified(
        db.read_now(lambda c: head(c, "tn_1"))
    )


def test_an_act_undone_leaves_no_entry(db: Database) -> None:
    def act(connection: Connection) -> None:
        connection.execute(insert(installation).values(key="a", value=b""))
        append(connection, INSTALLATION, "ada", "set", {}, AT)
        raise LookupError

    with pytest.raises(LookupError):
        db.write_now(act)
    assert db.read_now(lambda c: head(c, INSTALLATION)) == EMPTY


def test_an_edit_in_the_database_is_found(db: Database) -> None:
    for number in range(3):
        db.write_now(lambda c, n=number: append(c, "tn_1", "ada", "seen", {"n": n}, AT))  # type: ignore[misc]
    db.write_now(lambda c: c.execute(text("UPDATE audit SET at = at + 1 WHERE seq = 2")).close())
    assert verify(db.read_now(lambda c: entries(c, "tn_1")), "tn_1") == Broken(
        2, "the entry was altered"
    )


def test_the_hash_is_the_one_that_was_published() -> None:
    made = entry_hash(bytes(32), "tn_1", 1, AT, "ada", "token_made", '{"n":1}')
    assert made.hex() == "7393c7db68fac2aeb50890551eafeea5d037eb8cfc056618a96f9b5090cfb8c8"
