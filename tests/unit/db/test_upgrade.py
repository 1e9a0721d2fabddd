"""A database of every older schema, with a row in each table, becomes one of today's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, create_engine, event, insert, select, text
from sqlalchemy.types import Boolean, Integer, LargeBinary

import controller.db.migrate
from controller.db.migrate import schema_version, upgrade
from controller.db.schema import SCHEMA_VERSION

MIGRATIONS = Path(controller.db.migrate.__file__).parent / "migrations"
OLDER = [one.revision for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][:0:-1]
NOT_KEPT = {
    # What machines have to say comes with their next links.
    "0011": {"audit_alarms"},
}
"""Tables that begin anew after a version."""


def test_there_are_older_ones_and_the_newest_is_not_among_them() -> None:
    assert OLDER[0] == "0001"
    assert SCHEMA_VERSION not in OLDER


def value_of(column: Any) -> Any:
    """The same id everywhere, so that every reference leads to the one row that there is."""
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, Integer):
        return 1
    return b"bytes" if isinstance(column.type, LargeBinary) else "id"


def row_of(table: Table) -> dict[str, Any]:
    return {column.name: value_of(column) for column in table.columns}


@pytest.mark.parametrize("version", OLDER)
def test_a_row_of_every_table_comes_along(version: str, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/stead.db")

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    with engine.begin() as connection:
        upgrade(connection, to=version)
    before = filled(engine)
    with engine.begin() as connection:
        assert schema_version(connection) == version
        upgrade(connection)
        assert schema_version(connection) == SCHEMA_VERSION
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        after = read(connection)
    engine.dispose()
    for name, row in before.items():
        kept = after[name]
        if any(name in anew for last, anew in NOT_KEPT.items() if version <= last):
            assert kept == []
            continue
        assert len(kept) == 1, name
        assert {key: value for key, value in kept[0].items() if key in row} == row, name


def filled(engine: Any) -> dict[str, dict[str, Any]]:
    """Give each table its one row; what they are."""
    tables = MetaData()
    tables.reflect(engine)
    rows = {}
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                rows[table.name] = row_of(table)
                connection.execute(insert(table).values(rows[table.name]))
    return rows


def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    tables = MetaData()
    tables.reflect(connection)
    return {
        table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
        for table in tables.sorted_tables
    }
