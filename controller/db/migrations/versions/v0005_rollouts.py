"""How far rollouts have come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; jobs that are there have no rollout."""
    op.create_table(
        "rollouts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("soaked_at", sa.BigInteger(), nullable=True),
        sa.Column("forgiven", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_rollouts_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_rollouts_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_phase", "rollouts", ["phase"])
    op.create_index("ix_rollouts_tenant_id", "rollouts", ["tenant_id"])
