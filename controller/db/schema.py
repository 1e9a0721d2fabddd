"""The tables of the controller.

Every row that belongs to a tenant names it. Ids are text (`protocol.ids`), times are
`Moment`, hashes and records are bytes, JSON is text. A change here needs a migration
in `controller.db.migrations`; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from controller.db.columns import Moment

SCHEMA_VERSION = "0011"
"""The newest migration that this code knows; versions are four digits and only grow."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _tenant(*, primary_key: bool = False) -> Column[Any]:
    return Column(
        "tenant_id", Text, ForeignKey("tenants.id"), nullable=False, primary_key=primary_key
    )


def _machine(*, primary_key: bool = False) -> Column[Any]:
    return Column(
        "machine_id", Text, ForeignKey("machines.id"), nullable=False, primary_key=primary_key
    )


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
    _tenant(primary_key=True),
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
    _tenant(primary_key=True),
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

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
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
    _tenant(),
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
    _machine(primary_key=True),
    _tenant(),
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
    _tenant(),
    _machine(),
    Column("at", Moment, nullable=False),
    Index(None, "machine_id"),
)

machine_tags = Table(
    "machine_tags",
    metadata,
    _machine(primary_key=True),
    Column("tag", Text, primary_key=True),
    _tenant(),
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
    _tenant(primary_key=True),
    Column("hash", LargeBinary, primary_key=True),
    # zstd of the encoded section.
    Column("body", LargeBinary, nullable=False),
)

inventories = Table(
    "inventories",
    metadata,
    _machine(primary_key=True),
    Column("at", Moment, primary_key=True),
    _tenant(),
    Column("root", LargeBinary, nullable=False),
    # JSON: name of the section → hash of its body, in hexadecimal.
    Column("manifest", Text, nullable=False),
    Index(None, "tenant_id", "at"),
)

jobs = Table(
    "jobs",
    metadata,
    # The id of the order.
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("action", Text, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("operator", Text, nullable=False),
    Column("operator_role", Text, nullable=False),
    Column("submitted_at", Moment, nullable=False),
    Column("not_before", Moment),
    Column("deliver_by", Moment, nullable=False),
    Column("timeout_s", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("summary", Text, nullable=False),
    # The standing order of which this is a run, or which this revokes.
    Column("standing_id", Text),
    # Of a run alone: when its slot began. Its envelope is empty, being that of the order.
    Column("slot", Moment),
    Index(None, "tenant_id", "submitted_at"),
    Index(None, "standing_id", "slot"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    _tenant(),
    _machine(),
    Column("state", Text, nullable=False),
    Column("code", Text),
    Column("message", Text),
    Column("exit_code", Integer),
    Column("result", LargeBinary),
    Column("output_truncated", Boolean, nullable=False, default=False),
    # What its rows of output take up, so that a piece costs the same however many there are.
    Column("output_bytes", BigInteger, nullable=False, default=0),
    Column("offered_at", Moment),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("lease_until", Moment),
    UniqueConstraint("job_id", "machine_id"),
    Index(None, "machine_id", "state"),
    Index(None, "state", "lease_until"),
    Index(None, "tenant_id"),
)

policies = Table(
    "policies",
    metadata,
    _tenant(primary_key=True),
    Column("version", BigInteger, primary_key=True),
    # As the root signed it.
    Column("data", LargeBinary, nullable=False),
    Column("published_at", Moment, nullable=False),
    Column("published_by", Text, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    _tenant(),
    # Counts from 0. The terms are in the order.
    Column("batch", Integer, nullable=False),
    # `controller.jobs.rollout.Phase`.
    Column("phase", Text, nullable=False),
    Column("soaked_at", Moment),
    Column("forgiven", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "phase"),
    Index(None, "tenant_id"),
)

standing_orders = Table(
    "standing_orders",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("ends_at", Moment, nullable=False),
    Column("max_runs", Integer, nullable=False),
    Index(None, "tenant_id", "ends_at"),
)

standing_runs = Table(
    "standing_runs",
    metadata,
    # The standing order.
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    _machine(primary_key=True),
    _tenant(),
    Column("runs", Integer, nullable=False),
    Column("last_task_id", Text, ForeignKey("tasks.id"), nullable=False),
    # As the machine said last.
    Column("next_at", Moment),
    Index(None, "tenant_id"),
)

task_output = Table(
    "task_output",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    _tenant(),
    Column("stream", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("at", Moment, nullable=False),
)

vault_sessions = Table(
    "vault_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    _machine(),
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
    _tenant(),
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

points = Table(
    "points",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    _machine(),
    Column("received_at", Moment, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("root_id", LargeBinary, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("new_bytes", BigInteger, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("object_key", Text, nullable=False, unique=True),
    Index(None, "machine_id", "received_at"),
    Index(None, "tenant_id", "received_at"),
)

generations = Table(
    "generations",
    metadata,
    _tenant(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # "marking", "condemned" or "abandoned".
    Column("state", Text, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("condemned_at", Moment),
)

tombstones = Table(
    "tombstones",
    metadata,
    _tenant(primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    # In force once this generation is condemned.
    Column("generation", Integer, nullable=False),
    Index(None, "tenant_id", "generation"),
    sqlite_with_rowid=False,
)

doomed_packs = Table(
    "doomed_packs",
    metadata,
    _tenant(primary_key=True),
    Column("id", Text, primary_key=True),
    # The object may be deleted from then on.
    Column("due_at", Moment, nullable=False),
)

forgotten_points = Table(
    "forgotten_points",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    _machine(),
    Column("received_at", Moment, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("root_id", LargeBinary, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("new_bytes", BigInteger, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("object_key", Text, nullable=False, unique=True),
    Column("forgotten_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "machine_id", "forgotten_at"),
    Index(None, "tenant_id", "forgotten_at"),
)

point_holds = Table(
    "point_holds",
    metadata,
    Column("point_id", Text, primary_key=True),
    _tenant(),
    _machine(),
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
    _tenant(),
    _machine(),
    Index(None, "machine_id"),
)

retention_rules = Table(
    "retention_rules",
    metadata,
    _tenant(primary_key=True),
    # Empty: the rules of all machines of the tenant that have none of their own.
    Column("machine_id", Text, primary_key=True),
    # JSON of `controller.vault.retention.Rules`.
    Column("rules", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", Moment, nullable=False),
)

freezes = Table(
    "freezes",
    metadata,
    _machine(primary_key=True),
    _tenant(),
    # The restore point that looked wrong, and since when forgetting is stopped for it.
    Column("point_id", Text),
    Column("frozen_at", Moment),
    Column("reasons", Text, nullable=False),
    # An operator has looked at everything received up to then.
    Column("released_through", Moment),
    Index(None, "tenant_id"),
)

scrubs = Table(
    "scrubs",
    metadata,
    _tenant(primary_key=True),
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
    _tenant(),
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
    _tenant(primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("damage", Integer, nullable=False),
    sqlite_with_rowid=False,
)

unreadable = Table(
    "unreadable",
    metadata,
    _tenant(primary_key=True),
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
    _tenant(),
    _machine(),
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
    Column("found", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
