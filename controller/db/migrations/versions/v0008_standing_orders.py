"""Standing orders, and the jobs that are their runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; no job that is there is a run."""
    op.add_column("jobs", sa.Column("standing_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("slot", sa.BigInteger(), nullable=True))
    op.create_index("ix_jobs_standing_id_slot", "jobs", ["standing_id", "slot"])
    op.create_table(
        "standing_orders",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("max_runs", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_standing_orders_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_standing_orders_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_standing_orders"),
    )
    op.create_index(
        "ix_standing_orders_tenant_id_ends_at", "standing_orders", ["tenant_id", "ends_at"]
    )
    op.create_table(
        "standing_runs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("last_task_id", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_standing_runs_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_standing_runs_machine_id_machines"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_standing_runs_tenant_id_tenants"
        ),
        sa.ForeignKeyConstraint(
            ["last_task_id"], ["tasks.id"], name="fk_standing_runs_last_task_id_tasks"
        ),
        sa.PrimaryKeyConstraint("job_id", "machine_id", name="pk_standing_runs"),
    )
    op.create_index("ix_standing_runs_tenant_id", "standing_runs", ["tenant_id"])
