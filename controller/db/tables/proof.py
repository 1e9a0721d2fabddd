"""What was found of the vault's soundness: scrubs, damage, drills."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text

from controller.db.columns import Moment
from controller.db.tables.naming import machine_column, metadata, tenant_column

scrubs = Table(
    "scrubs",
    metadata,
    tenant_column(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # "steady", which goes on by itself, or "ordered", at once and at full speed.
    Column("kind", Text, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("ended_at", Moment),
    # JSON: what was looked at last. What follows it is looked at next.
    Column("position", Text, nullable=False),
    Column("packs", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("points", Integer, nullable=False),
    Column("damaged", Integer, nullable=False),
    Column("unreadable", Integer, nullable=False),
)

damages = Table(
    "damages",
    metadata,
    # Never used twice: lost chunks refer to it.
    Column("number", Integer, primary_key=True, autoincrement=True),
    tenant_column(),
    Column("object_key", Text, nullable=False),
    Column("found_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("kept_chunks", Integer, nullable=False),
    Column("lost_chunks", Integer, nullable=False),
    # The damaged object is in the quarantine.
    Column("is_aside", Boolean, nullable=False),
    # JSON: machine → ids of its restore points that need what was lost; null until known.
    Column("hit", Text),
    Index(None, "tenant_id", "found_at"),
    sqlite_autoincrement=True,
)

lost_chunks = Table(
    "lost_chunks",
    metadata,
    tenant_column(primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("damage", Integer, nullable=False),
    sqlite_with_rowid=False,
)

unreadable = Table(
    "unreadable",
    metadata,
    tenant_column(primary_key=True),
    Column("object_key", Text, primary_key=True),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)

drills = Table(
    "drills",
    metadata,
    Column("id", Text, primary_key=True),
    tenant_column(),
    machine_column(),
    Column("point_id", Text, nullable=False),
    # "drill", or "sample" for what is decoded again after a backup.
    Column("kind", Text, nullable=False),
    # "good", "wrong" or "failed".
    Column("state", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("took_ms", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # Files that were compared with the live ones.
    Column("compared", Integer, nullable=False),
    Column("wrong", Integer, nullable=False),
    Column("message", Text, nullable=False),
    # JSON: the files that were not as they should be, each with the reason.
    Column("details", Text, nullable=False),
    Index(None, "machine_id", "kind", "received_at"),
    Index(None, "tenant_id"),
)
