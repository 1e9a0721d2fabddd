"""Which files are opened as the database, and what is said about the others."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

from controller.db.database import Database
from controller.db.errors import (
    DatabaseDamagedError,
    DatabaseFullError,
    DatabaseLockedError,
    DatabaseMissingError,
    DatabaseVersionError,
)
from protocol.errors import Code, InvalidError


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "stead.db"
    Database.open(url(path), create=True).close_now()
    return path


def execute(path: Path, statement: str) -> None:
    path.with_name(path.name + ".sums").unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_new_database_is_its_owners_alone_and_opens_again(made: Path) -> None:
    assert made.stat().st_mode & 0o077 == 0
    Database.open(url(made)).close_now()
    Database.open(url(made), create=True).close_now()


def test_closing_leaves_one_file_to_copy_and_its_sums(made: Path) -> None:
    names = {path.name for path in made.parent.iterdir()}
    assert names == {"stead.db", "stead.db.lock", "stead.db.sums"}


@pytest.mark.parametrize("content", [None, b""])
def test_a_lost_database_is_not_replaced_by_an_empty_one(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "stead.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatabaseMissingError, match="restore it from a backup"):
        Database.open(url(path))


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EIO, DatabaseDamagedError), (errno.ENOSPC, DatabaseFullError)]
)
def test_a_disk_that_does_not_take_the_name_of_the_holder_is_said_to_fail(
    made: Path, number: int, said: type[Exception]
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "pwrite", failing)
        with pytest.raises(said, match="the disk under"):
            Database.open(url(made))
    # Nothing holds it any more.
    Database.open(url(made)).close_now()


def test_a_second_process_is_refused_and_told_who_has_it(made: Path) -> None:
    program = (
        "import sys; from controller.db.database import Database;"
        f"db = Database.open({url(made)!r}); print('open', flush=True);"
        "sys.stdin.read(); db.close_now()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(DatabaseLockedError, match=f"process {other.pid};") as caught:
            Database.open(url(made))
        assert caught.value.code is Code.LOCKED
        other.communicate(timeout=20)
    Database.open(url(made)).close_now()


def test_a_refused_opening_gives_the_lock_back(made: Path) -> None:
    made.write_bytes(b"not a database, " * 1000)
    for _ in range(2):
        with pytest.raises(DatabaseDamagedError):
            Database.open(url(made))


def test_a_file_that_is_no_database_is_named(made: Path) -> None:
    made.with_name("stead.db.sums").unlink()
    made.write_bytes(b"not a database, " * 1000)
    with pytest.raises(DatabaseDamagedError, match=r"stead\.db.*vault rebuild") as caught:
        Database.open(url(made))
    assert caught.value.code is Code.DATABASE_DAMAGED


def test_damage_inside_is_found_at_opening(made: Path) -> None:
    made.with_name("stead.db.sums").unlink()
    content = bytearray(made.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 40] = bytes(40)
    made.write_bytes(content)
    with pytest.raises(DatabaseDamagedError, match=r"stead\.db"):
        Database.open(url(made))


def test_a_truncated_file_is_found_at_opening(made: Path) -> None:
    made.with_name("stead.db.sums").unlink()
    content = made.read_bytes()
    made.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatabaseDamagedError, match=r"stead\.db"):
        Database.open(url(made))


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE theirs (a)")
    with pytest.raises(DatabaseDamagedError, match="Stead's own file"):
        Database.open(url(path), create=True)


def test_a_newer_schema_is_refused(made: Path) -> None:
    execute(made, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseVersionError, match="upgrade the controller") as caught:
        Database.open(url(made), migrate=True)
    assert caught.value.code is Code.UPGRADE_REQUIRED


def test_an_older_schema_is_upgraded_only_when_asked(made: Path) -> None:
    execute(made, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(DatabaseVersionError, match="upgrade-db"):
        Database.open(url(made))


@pytest.mark.parametrize(
    "text_", ["postgresql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "nonsense"]
)
def test_a_url_that_names_no_file_is_refused_without_its_password(text_: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Database.open(text_)
    assert "secret" not in str(caught.value)


def test_the_settings_that_durability_rests_on(made: Path) -> None:
    db = Database.open(url(made))

    def setting(connection: object, name: str) -> object:
        return connection.scalar(text(f"PRAGMA {name}"))  # type: ignore[attr-defined]

    try:
        assert db.write_now(lambda c: setting(c, "journal_mode")) == "wal"
        assert db.write_now(lambda c: setting(c, "synchronous")) == 2
        assert db.write_now(lambda c: setting(c, "foreign_keys")) == 1
        assert db.read_now(lambda c: setting(c, "query_only")) == 1
        assert db.read_now(lambda c: setting(c, "wal_autocheckpoint")) == 0
        assert db.read_now(lambda c: "WITHOUT ROWID" in _ddl(c, "chunks"))
        assert db.read_now(lambda c: inspect(c).has_table("audit"))
    finally:
        db.close_now()


def _ddl(connection: object, table: str) -> str:
    found = connection.scalar(  # type: ignore[attr-defined]
        text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table}
    )
    return str(found)


def test_a_program_that_forgets_to_close_ends_and_keeps_its_acts(made: Path) -> None:
    program = (
        "from controller.db.database import Database; from sqlalchemy import insert;"
        "from controller.db.schema import installation;"
        f"db = Database.open({url(made)!r});"
        "db.write_now(lambda c: c.execute("
        "insert(installation).values(key='a', value=b'')).close())"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    db = Database.open(url(made))
    try:
        assert db.read_now(lambda c: c.scalar(text("SELECT key FROM installation"))) == "a"
    finally:
        db.close_now()


def test_an_error_does_not_tell_the_values_of_its_statement(made: Path) -> None:
    database = Database.open(url(made))
    for run in (database.write_now, database.read_now):
        with pytest.raises(OperationalError) as caught:
            run(lambda c: c.execute(text("SELECT :value FROM nowhere"), {"value": "a secret"}))
        assert "nowhere" in str(caught.value)
        assert "a secret" not in str(caught.value)
    database.close_now()
