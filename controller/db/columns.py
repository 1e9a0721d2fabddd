"""The column types that the schema uses beyond SQLAlchemy's own.

Only what SQLite and PostgreSQL both have: text, 64-bit integers, bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import TypeDecorator

from controller.db.micros import from_micros, to_micros


class Moment(TypeDecorator[datetime]):
    """A time with a zone in Python, microseconds since 1970 in the database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Refuse a time without a zone (`ValueError`)."""
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the time in UTC."""
        return None if value is None else from_micros(value)
