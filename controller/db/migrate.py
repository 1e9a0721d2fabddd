"""Bring a database's schema to the version that this code works with."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from controller.db.errors import DatabaseDamagedError, DatabaseVersionError
from controller.db.schema import SCHEMA_VERSION

_MIGRATIONS = Path(__file__).parent / "migrations"


def schema_version(connection: Connection) -> str | None:
    """The version in the database; None when it holds no tables at all.

    Raises `DatabaseDamagedError` for a sound database that is not Stead's.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    found = None
    if "alembic_version" in names:
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if found is None:
        raise DatabaseDamagedError(
            "the database holds tables but no version of Stead's schema; "
            "point --database at Stead's own file"
        )
    return str(found)


def check_version(found: str | None) -> bool:
    """Whether the schema is current; `DatabaseVersionError` when it is newer than the code."""
    if found is not None and found > SCHEMA_VERSION:
        raise DatabaseVersionError(
            f"the database has schema {found} and this controller knows {SCHEMA_VERSION}; "
            "upgrade the controller"
        )
    return found == SCHEMA_VERSION


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the migrations that are missing, in one transaction that the caller has begun."""
    # Alembic takes a tenth of a second to import and is needed once per release.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
