"""The audit logs: entries, the tree over them, checkpoints, alarms."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Table, Text

from controller.db.columns import Moment
from controller.db.tables.naming import metadata

audit = Table(
    "audit",
    metadata,
    # Empty for what belongs to the installation, hence no foreign key.
    Column("tenant_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("actor", Text, nullable=False),
    Column("event", Text, nullable=False),
    # JSON, kept byte for byte as it was hashed.
    Column("body", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_nodes = Table(
    "audit_nodes",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    # 8, 16, …: the node is the root over 2**level entries.
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    # Of how many entries.
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    # The bytes that were signed; see protocol/checkpoint.py.
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    # SHA-256 in hex of the signer's certificate, which the table "installation" has.
    Column("signer", Text, nullable=False),
)

audit_alarms = Table(
    "audit_alarms",
    metadata,
    Column("machine_id", Text, ForeignKey("machines.id"), primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    # The log that the machine saw fork: its tenant's, or empty for the installation's.
    Column("log", Text, primary_key=True),
    # A word of `protocol.checkpoint.Found`.
    Column("found", Text, primary_key=True),
    Column("at", Moment, nullable=False),
)
