"""What scrubbing and drills remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _tenant(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=f"fk_{table}_tenant_id_tenants"
        ),
    ]


def upgrade() -> None:
    """Make the tables of scrubbing and drills."""
    op.create_table(
        "scrubs",
        *_tenant("scrubs"),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("packs", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.Column("unreadable", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "number", name="pk_scrubs"),
    )
    op.create_table(
        "damages",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        *_tenant("damages"),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("kept_chunks", sa.Integer(), nullable=False),
        sa.Column("lost_chunks", sa.Integer(), nullable=False),
        sa.Column("is_aside", sa.Boolean(), nullable=False),
        sa.Column("hit", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_damages"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_damages_tenant_id_found_at", "damages", ["tenant_id", "found_at"])
    op.create_table(
        "lost_chunks",
        *_tenant("lost_chunks"),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("damage", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_lost_chunks"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unreadable",
        *_tenant("unreadable"),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "object_key", name="pk_unreadable"),
    )
    op.create_table(
        "drills",
        sa.Column("id", sa.Text(), nullable=False),
        *_tenant("drills"),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_drills_machine_id_machines"
        ),
        sa.Column("point_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("took_ms", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_drills"),
    )
    op.create_index(
        "ix_drills_machine_id_kind_received_at", "drills", ["machine_id", "kind", "received_at"]
    )
    op.create_index("ix_drills_tenant_id", "drills", ["tenant_id"])
