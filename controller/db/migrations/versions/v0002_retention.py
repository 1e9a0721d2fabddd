"""What retention and collection remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _tenant(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=f"fk_{table}_tenant_id_tenants"
        ),
    ]


def _machine(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=f"fk_{table}_machine_id_machines"
        ),
    ]


def upgrade() -> None:
    """Make the tables of retention and collection."""
    op.create_table(
        "generations",
        *_tenant("generations"),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("condemned_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "number", name="pk_generations"),
    )
    op.create_table(
        "tombstones",
        *_tenant("tombstones"),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tombstones"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tombstones_tenant_id_generation", "tombstones", ["tenant_id", "generation"])
    op.create_table(
        "doomed_packs",
        *_tenant("doomed_packs"),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_doomed_packs"),
    )
    op.create_table(
        "forgotten_points",
        sa.Column("id", sa.Text(), nullable=False),
        *_tenant("forgotten_points"),
        *_machine("forgotten_points"),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("root_id", sa.LargeBinary(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("new_bytes", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("forgotten_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_forgotten_points"),
        sa.UniqueConstraint("object_key", name="uq_forgotten_points_object_key"),
    )
    for column in ("machine_id", "tenant_id"):
        op.create_index(
            f"ix_forgotten_points_{column}_forgotten_at",
            "forgotten_points",
            [column, "forgotten_at"],
        )
    op.create_table(
        "point_holds",
        sa.Column("point_id", sa.Text(), nullable=False),
        *_tenant("point_holds"),
        *_machine("point_holds"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("point_id", name="pk_point_holds"),
    )
    op.create_index("ix_point_holds_machine_id", "point_holds", ["machine_id"])
    op.create_table(
        "point_tags",
        sa.Column("point_id", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        *_tenant("point_tags"),
        *_machine("point_tags"),
        sa.PrimaryKeyConstraint("point_id", "tag", name="pk_point_tags"),
    )
    op.create_index("ix_point_tags_machine_id", "point_tags", ["machine_id"])
    op.create_table(
        "retention_rules",
        *_tenant("retention_rules"),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "machine_id", name="pk_retention_rules"),
    )
    op.create_table(
        "freezes",
        *_machine("freezes"),
        *_tenant("freezes"),
        sa.Column("point_id", sa.Text(), nullable=True),
        sa.Column("frozen_at", sa.BigInteger(), nullable=True),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("released_through", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("machine_id", name="pk_freezes"),
    )
    op.create_index("ix_freezes_tenant_id", "freezes", ["tenant_id"])
