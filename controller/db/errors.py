"""What can go wrong with the database as a whole, with the step that helps."""

from __future__ import annotations

from protocol.errors import Code, NotFoundError, SteadError


class DatabaseDamagedError(SteadError):
    """The file is not a sound database, or the disk under it failed."""

    code = Code.DATABASE_DAMAGED


class DatabaseFullError(SteadError):
    """The disk is full: nothing of the refused act was kept."""

    code = Code.STORE_FULL


class DatabaseLockedError(SteadError):
    """Another process writes to this database."""

    code = Code.LOCKED


class DatabaseMissingError(NotFoundError):
    """There is no database where the configuration says there is one."""


class DatabaseVersionError(SteadError):
    """The schema in the file is not the one that this code works with."""

    code = Code.UPGRADE_REQUIRED


class DatabaseClosedError(SteadError):
    """The database was closed before the act could be recorded."""

    code = Code.UNAVAILABLE
