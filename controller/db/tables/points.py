"""Restore points, and what is said about keeping them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from controller.db.columns import Moment
from controller.db.tables.naming import machine_column, metadata, tenant_column


def _point() -> list[Column[Any]]:
    """What is known of a restore point, also once it is forgotten."""
    return [
        Column("id", Text, primary_key=True),
        tenant_column(),
        machine_column(),
        Column("received_at", Moment, nullable=False),
        Column("started_at", Moment, nullable=False),
        Column("record", LargeBinary, nullable=False),
        Column("root_id", LargeBinary, nullable=False),
        Column("files", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("new_bytes", BigInteger, nullable=False),
        Column("skipped", Integer, nullable=False),
        Column("object_key", Text, nullable=False, unique=True),
    ]


points = Table(
    "points",
    metadata,
    *_point(),
    Index(None, "machine_id", "received_at"),
    Index(None, "tenant_id", "received_at"),
)

forgotten_points = Table(
    "forgotten_points",
    metadata,
    *_point(),
    Column("forgotten_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "machine_id", "forgotten_at"),
    Index(None, "tenant_id", "forgotten_at"),
)

point_holds = Table(
    "point_holds",
    metadata,
    Column("point_id", Text, primary_key=True),
    tenant_column(),
    machine_column(),
    Column("reason", Text, nullable=False),
    Column("held_by", Text, nullable=False),
    Column("held_at", Moment, nullable=False),
    Index(None, "machine_id"),
)

point_tags = Table(
    "point_tags",
    metadata,
    Column("point_id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    tenant_column(),
    machine_column(),
    Index(None, "machine_id"),
)

retention_rules = Table(
    "retention_rules",
    metadata,
    tenant_column(primary_key=True),
    # Empty: the rules of all machines of the tenant that have none of their own.
    Column("machine_id", Text, primary_key=True),
    # JSON of `controller.vault.forget.retention.Rules`.
    Column("rules", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", Moment, nullable=False),
)

freezes = Table(
    "freezes",
    metadata,
    machine_column(primary_key=True),
    tenant_column(),
    # The restore point that looked wrong, and since when forgetting is stopped for it.
    Column("point_id", Text),
    Column("frozen_at", Moment),
    Column("reasons", Text, nullable=False),
    # An operator has looked at everything received up to then.
    Column("released_through", Moment),
    Index(None, "tenant_id"),
)
