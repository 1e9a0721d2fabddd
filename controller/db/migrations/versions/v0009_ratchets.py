"""What is kept to find out copies of machines, and which machine is a clone of which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; machines that are there have no token yet and are clones of none."""
    op.add_column("machines", sa.Column("clone_of", sa.Text(), nullable=True))
    op.create_index("ix_machines_clone_of", "machines", ["clone_of"])
    op.create_table(
        "ratchets",
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("hardware", sa.LargeBinary(), nullable=False),
        sa.Column("former", sa.LargeBinary(), nullable=False),
        sa.Column("awaited", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("fork_from", sa.BigInteger(), nullable=False),
        sa.Column("fork_to", sa.BigInteger(), nullable=False),
        sa.Column("doubted_at", sa.BigInteger(), nullable=True),
        sa.Column("contested", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_ratchets_machine_id_machines"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_ratchets_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("machine_id", name="pk_ratchets"),
    )
    op.create_index("ix_ratchets_tenant_id", "ratchets", ["tenant_id"])
