"""Orders on their way: jobs, their tasks, and what holds them to terms."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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

jobs = Table(
    "jobs",
    metadata,
    # The id of the order.
    Column("id", Text, primary_key=True),
    tenant_column(),
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
    tenant_column(),
    machine_column(),
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

task_output = Table(
    "task_output",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    tenant_column(),
    Column("stream", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("at", Moment, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    tenant_column(primary_key=True),
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
    tenant_column(),
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
    tenant_column(),
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
    machine_column(primary_key=True),
    tenant_column(),
    Column("runs", Integer, nullable=False),
    Column("last_task_id", Text, ForeignKey("tasks.id"), nullable=False),
    # As the machine said last.
    Column("next_at", Moment),
    Index(None, "tenant_id"),
)
