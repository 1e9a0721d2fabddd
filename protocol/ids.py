"""Names of things that two machines must agree on.

An id is a prefix that says what it names, an underscore, and 26 characters of
Crockford base 32 over 16 bytes: 48 bits of milliseconds since 1970, then 80 random
bits (the layout of a ULID), so ids sort by the time they were made. Time and
randomness come from the caller.
"""

from __future__ import annotations

import re
from typing import NewType

from protocol.errors import InvalidError

TenantId = NewType("TenantId", str)
MachineId = NewType("MachineId", str)
OperatorId = NewType("OperatorId", str)
TokenId = NewType("TokenId", str)
OrderId = NewType("OrderId", str)
TaskId = NewType("TaskId", str)
PointId = NewType("PointId", str)
SessionId = NewType("SessionId", str)
ParcelId = NewType("ParcelId", str)

PREFIXES = {
    TenantId: "tn",
    MachineId: "mc",
    OperatorId: "op",
    TokenId: "tk",
    OrderId: "or",
    TaskId: "ts",
    PointId: "rp",
    SessionId: "vs",
    ParcelId: "pc",
}

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BODY = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}\Z")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?\Z")
RANDOM_BYTES = 10
_KEY_DIGITS = RANDOM_BYTES * 8 // 5


def make_id(prefix: str, *, at_ms: int, random: bytes) -> str:
    """Make an id from the time in milliseconds since 1970 and ten random bytes.

    >>> make_id("mc", at_ms=0, random=bytes(10))
    'mc_00000000000000000000000000'
    """
    if len(random) != RANDOM_BYTES:
        raise InvalidError(f"an id takes {RANDOM_BYTES} random bytes, not {len(random)}")
    value = (at_ms & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    digits = "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
    return f"{prefix}_{digits}"


def machine_of_key(key_hash: bytes, *, at_ms: int) -> MachineId:
    """The id of the machine that has this key (`protocol.identity.key_hash`).

    The hash takes the place of what is drawn otherwise. So a machine that made its key itself
    knows that no other one has, or had, the name that it is given.
    """
    return MachineId(make_id("mc", at_ms=at_ms, random=key_hash[:RANDOM_BYTES]))


def is_of_key(machine: str, key_hash: bytes) -> bool:
    """Whether a machine's id is one that `machine_of_key` makes of this key, at any time.

    >>> is_of_key(machine_of_key(bytes(32), at_ms=5), bytes(32))
    True
    """
    return machine[-_KEY_DIGITS:] == machine_of_key(key_hash, at_ms=0)[-_KEY_DIGITS:]


def check_id(prefix: str, text: str) -> str:
    """Return `text` when it is an id with this prefix, raise `InvalidError` otherwise."""
    head, _, body = text.partition("_")
    if head != prefix or not _BODY.match(body):
        raise InvalidError(f"{text[:80]!r} is not an id of the form {prefix}_ and 26 characters")
    return text


def check_name(text: str, *, what: str = "name") -> str:
    """Return `text` when it can name a tenant, a machine or an operator.

    Lower-case letters, digits, dots, dashes and underscores, 1 to 63 characters,
    beginning and ending with a letter or a digit.

    >>> check_name("web-01")
    'web-01'
    """
    if not _NAME.match(text):
        raise InvalidError(
            f"{text[:80]!r} cannot be a {what}: use 1 to 63 lower-case letters, digits, "
            "dots, dashes and underscores, beginning and ending with a letter or digit"
        )
    return text
