"""What all tables share: how their constraints are named, and whose a row is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def tenant_column(*, primary_key: bool = False) -> Column[Any]:
    """The tenant that a row belongs to."""
    return Column(
        "tenant_id", Text, ForeignKey("tenants.id"), nullable=False, primary_key=primary_key
    )


def machine_column(*, primary_key: bool = False) -> Column[Any]:
    """The machine that a row is about."""
    return Column(
        "machine_id", Text, ForeignKey("machines.id"), nullable=False, primary_key=primary_key
    )
