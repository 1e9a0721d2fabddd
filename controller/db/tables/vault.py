"""What is stored: sessions, packs, chunks, and what is condemned."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from controller.db.columns import Moment
from controller.db.tables.naming import machine_column, metadata, tenant_column

vault_sessions = Table(
    "vault_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    tenant_column(),
    machine_column(),
    Column("fence", BigInteger, nullable=False),
    Column("parent_point", Text),
    Column("begun_at", Moment, nullable=False),
    Column("lease_until", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Index(None, "machine_id", "state"),
    Index(None, "tenant_id", "state"),
)

packs = Table(
    "packs",
    metadata,
    # Never used twice, so that a number kept in memory cannot come to mean another pack.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    tenant_column(),
    Column("kind", Text, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("tenant_id", "id"),
    # What the chunks refer to: a chunk can only lie in a pack of its own tenant.
    UniqueConstraint("tenant_id", "number"),
    sqlite_autoincrement=True,
)

chunks = Table(
    "chunks",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("pack_number", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
    Column("kind", Integer, nullable=False),
    ForeignKeyConstraint(["tenant_id", "pack_number"], ["packs.tenant_id", "packs.number"]),
    Index(None, "pack_number"),
    sqlite_with_rowid=False,
)

generations = Table(
    "generations",
    metadata,
    tenant_column(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # "marking", "condemned" or "abandoned".
    Column("state", Text, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("condemned_at", Moment),
)

tombstones = Table(
    "tombstones",
    metadata,
    tenant_column(primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    # In force once this generation is condemned.
    Column("generation", Integer, nullable=False),
    Index(None, "tenant_id", "generation"),
    sqlite_with_rowid=False,
)

doomed_packs = Table(
    "doomed_packs",
    metadata,
    tenant_column(primary_key=True),
    Column("id", Text, primary_key=True),
    # The object may be deleted from then on.
    Column("due_at", Moment, nullable=False),
)
