"""The errors that Stead names, on both sides of the wire.

A class for code, a `Code` for scripts and peers, a message for people that names
the next step. How a code becomes a gRPC status is `controller.rpc`'s affair, how it
becomes an exit code is the command lines'.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON or msgpack raises for bytes that are none, are not text where that should
be, or are nested too deep.
"""


class Code(StrEnum):
    """What went wrong, as a stable word that scripts may compare."""

    INVALID = "invalid"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_ACTION = "unknown_action"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    REVOKED = "revoked"
    RETIRED = "retired"
    CLONE = "clone"
    PARKED = "parked"
    STALE_REVOCATIONS = "stale_revocations"
    STALE_POLICY = "stale_policy"
    NEEDS_APPROVAL = "needs_approval"
    EXPIRED = "expired"
    DISTRUSTED = "distrusted"
    UNKNOWN_MACHINE = "unknown_machine"
    TOKEN_INVALID = "token_invalid"
    TOKEN_USED = "token_used"
    TOKEN_EXPIRED = "token_expired"
    WRONG_PIN = "wrong_pin"
    CLOCK_SKEW = "clock_skew"
    UPGRADE_REQUIRED = "upgrade_required"
    BAD_SIGNATURE = "bad_signature"
    WRONG_TENANT = "wrong_tenant"
    WRONG_TARGET = "wrong_target"
    REPLAYED = "replayed"
    PRECONDITION = "precondition"
    LOCKED = "locked"
    CHUNK_MISSING = "chunk_missing"
    CHUNK_DAMAGED = "chunk_damaged"
    PACK_DAMAGED = "pack_damaged"
    SESSION_LOST = "session_lost"
    STORE_FULL = "store_full"
    DATABASE_DAMAGED = "database_damaged"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    UNSUPPORTED = "unsupported"
    LIMIT = "limit"
    INTERNAL = "internal"


class SteadError(Exception):
    """An expected failure: it has a code, and its message is written for people."""

    code: Code = Code.INTERNAL

    def __init__(self, message: str, *, code: Code | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidError(SteadError):
    """What was given cannot be used: the message says which part and why."""

    code = Code.INVALID


class NotFoundError(SteadError):
    """What was asked for does not exist, or belongs to a tenant the caller may not see."""

    code = Code.NOT_FOUND


class DeniedError(SteadError):
    """The caller is known and may not do this."""

    code = Code.DENIED


class UnavailableError(SteadError):
    """The other side cannot be reached; trying again later may help."""

    code = Code.UNAVAILABLE
