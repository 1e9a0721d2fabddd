"""The migrations lead to the very tables that the schema names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Table, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

import controller.db.migrate
from controller.db.migrate import schema_version, upgrade
from controller.db.schema import SCHEMA_VERSION, metadata

MIGRATIONS = Path(controller.db.migrate.__file__).parent / "migrations"


def test_migrations_make_what_the_schema_names(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.begin() as connection:
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert schema_version(connection) == SCHEMA_VERSION
    engine.dispose()


def test_the_schema_names_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_can_be_said_in_postgresql(table: Table) -> None:
    assert "CREATE TABLE" in str(
        CreateTable(table).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    )


def test_every_row_of_a_tenant_names_it() -> None:
    installation_wide = {"installation", "tenants", "operators"}
    assert {
        table.name for table in metadata.sorted_tables if "tenant_id" not in table.c
    } == installation_wide


def test_an_installed_package_brings_its_migrations(tmp_path: Path) -> None:
    root = Path(controller.db.migrate.__file__).parents[2]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("agent", "controller", "protocol"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (root / name).exists():
            shutil.copy(root / name, source)
        else:
            (source / name).touch()
    options = "--quiet --no-deps --no-build-isolation --no-index --disable-pip-version-check"
    target = ["--root-user-action=ignore", "--target", str(tmp_path / "site")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options.split(), *target, str(source)],
        check=True,
    )
    program = (
        "import controller; from controller.db.database import Database;"
        f"assert controller.__file__.startswith({str(tmp_path)!r});"
        f"Database.open('sqlite:///{tmp_path}/x.db', create=True).close_now()"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
