"""The recovery keys that tenants had, and how operators share them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; the key that a tenant has is its first."""
    op.create_table(
        "tenant_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("recovery_public", sa.LargeBinary(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_tenant_keys_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "number", name="pk_tenant_keys"),
    )
    op.create_table(
        "key_shares",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("shared_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_key_shares_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "operator", name="pk_key_shares"),
    )
    op.get_bind().execute(
        sa.text(
            "INSERT INTO tenant_keys"
            " (tenant_id, number, recovery_public, link, created_at, created_by)"
            " SELECT id, 1, recovery_public, :link, created_at, '' FROM tenants"
            " WHERE recovery_public IS NOT NULL"
        ),
        {"link": b""},
    )
