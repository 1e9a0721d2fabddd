"""What a script learns from how a command ended: the exit codes."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.errors import Code, SteadError

DONE = 0
FAILED = 1
WRONG_USE = 2
IN_PART = 3
REFUSED = 4
NOT_IN_TIME = 5
UNREACHABLE = 6
INTERRUPTED = 130
"""What shells say of a program that Ctrl-C ended."""

OVER = frozenset(
    {
        "succeeded",
        "partial",
        "failed",
        "timed_out",
        "expired",
        "cancelled",
        "rejected",
        "indeterminate",
    }
)
"""States of a task that nothing follows."""

_BY_CODE: Mapping[Code, int] = {
    Code.INVALID: WRONG_USE,
    Code.UNAVAILABLE: UNREACHABLE,
    Code.DENIED: REFUSED,
    Code.NEEDS_APPROVAL: REFUSED,
    Code.REVOKED: REFUSED,
    Code.UNAUTHENTICATED: REFUSED,
    Code.BAD_SIGNATURE: REFUSED,
    Code.WRONG_TENANT: REFUSED,
    Code.STALE_POLICY: REFUSED,
}


def exit_code_of(error: SteadError) -> int:
    """The exit code that an error comes to.

    >>> exit_code_of(SteadError("", code=Code.DENIED))
    4
    """
    return _BY_CODE.get(error.code, FAILED)
