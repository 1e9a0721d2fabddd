"""Machines: how they came to be enrolled, how they are known, and what they say of themselves."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from controller.db.columns import Moment
from controller.db.tables.naming import machine_column, metadata, tenant_column

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    tenant_column(),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("bundle", LargeBinary),
    Column("uses", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("tags", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Index(None, "tenant_id"),
)

machines = Table(
    "machines",
    metadata,
    Column("id", Text, primary_key=True),
    tenant_column(),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("public_key_hash", LargeBinary, nullable=False, unique=True),
    Column("sealing_key", LargeBinary),
    Column("sealing_proof", LargeBinary),
    Column("hostname", Text, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("enrolled_at", Moment, nullable=False),
    Column("last_seen_at", Moment),
    Column("inventory_root", LargeBinary),
    # The machine whose identity this one shared before it got its own.
    Column("clone_of", Text),
    UniqueConstraint("tenant_id", "name"),
    Index(None, "clone_of"),
)

# Fields as in `controller.authority.ratchet.Kept`.
ratchets = Table(
    "ratchets",
    metadata,
    machine_column(primary_key=True),
    tenant_column(),
    Column("generation", BigInteger, nullable=False),
    Column("hardware", LargeBinary, nullable=False),
    Column("former", LargeBinary, nullable=False),
    Column("awaited", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("fork_from", BigInteger, nullable=False),
    Column("fork_to", BigInteger, nullable=False),
    Column("doubted_at", Moment),
    Column("contested", BigInteger, nullable=False),
    Index(None, "tenant_id"),
)

enrollments = Table(
    "enrollments",
    metadata,
    Column("token_id", Text, ForeignKey("tokens.id"), primary_key=True),
    Column("public_key_hash", LargeBinary, primary_key=True),
    tenant_column(),
    machine_column(),
    Column("at", Moment, nullable=False),
    Index(None, "machine_id"),
)

machine_tags = Table(
    "machine_tags",
    metadata,
    machine_column(primary_key=True),
    Column("tag", Text, primary_key=True),
    tenant_column(),
    Index(None, "tenant_id", "tag"),
)

certificates = Table(
    "certificates",
    metadata,
    # Lower-case hexadecimal; a serial has up to 159 bits.
    Column("serial", Text, primary_key=True),
    Column("machine_id", Text, ForeignKey("machines.id")),
    Column("operator_id", Text, ForeignKey("operators.id")),
    Column("tenant_id", Text, ForeignKey("tenants.id")),
    Column("issued_at", Moment, nullable=False),
    Column("not_after", Moment, nullable=False),
    Column("revoked_at", Moment),
    Index(None, "machine_id"),
    Index(None, "operator_id"),
)

sections = Table(
    "sections",
    metadata,
    tenant_column(primary_key=True),
    Column("hash", LargeBinary, primary_key=True),
    # zstd of the encoded section.
    Column("body", LargeBinary, nullable=False),
)

inventories = Table(
    "inventories",
    metadata,
    machine_column(primary_key=True),
    Column("at", Moment, primary_key=True),
    tenant_column(),
    Column("root", LargeBinary, nullable=False),
    # JSON: name of the section → hash of its body, in hexadecimal.
    Column("manifest", Text, nullable=False),
    Index(None, "tenant_id", "at"),
)
