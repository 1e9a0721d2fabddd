"""A machine has an alarm of each kind about a log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table anew; what machines have to say comes with their next links."""
    op.drop_table("audit_alarms")
    op.create_table(
        "audit_alarms",
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("found", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_audit_alarms_machine_id_machines"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_audit_alarms_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("machine_id", "log", "found", name="pk_audit_alarms"),
    )
    op.create_index("ix_audit_alarms_tenant_id", "audit_alarms", ["tenant_id"])
