"""A column whose index is not to be used."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, func


def unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """The same value, a text that is never null, for conditions beside a better one.

    SQLite has no statistics here. Between the index of a tenant's column, by which all of a
    tenant's rows are found, and one by which a few are, it may take the former.
    """
    return func.coalesce(column, "")
