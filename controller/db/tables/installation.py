"""The installation, its tenants with their keys, and its operators."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, Table, Text

from controller.db.columns import Moment
from controller.db.tables.naming import metadata, tenant_column

installation = Table(
    "installation",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("recovery_public", LargeBinary),
    Column("dedup_scope", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("retired_at", Moment),
)

tenant_keys = Table(
    "tenant_keys",
    metadata,
    tenant_column(primary_key=True),
    # 1 is the first; the highest is in force.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("recovery_public", LargeBinary, nullable=False),
    # Leads a holder of this key to the one before; empty for the first.
    Column("link", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
)

key_shares = Table(
    "key_shares",
    metadata,
    tenant_column(primary_key=True),
    # The name of the one they are for.
    Column("operator", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("shared_at", Moment, nullable=False),
)

operators = Table(
    "operators",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    # "all", or tenant ids with commas between them.
    Column("scope", Text, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)
