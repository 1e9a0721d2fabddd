"""TOML that people write, into records."""

from __future__ import annotations

import tomllib
from typing import TypeVar

import msgspec

from protocol.errors import InvalidError

S = TypeVar("S", bound=msgspec.Struct)


def read_toml(data: bytes, kind: type[S]) -> S:
    """A record from a file's content; `InvalidError` says what of it cannot be read."""
    try:
        return msgspec.convert(tomllib.loads(data.decode()), kind)
    except UnicodeDecodeError as error:
        raise InvalidError(f"it is not UTF-8: {error}") from error
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        # Beside what it calls an error, tomllib leaves to Python how many digits a number has,
        # and how deep lists are nested.
        raise InvalidError(str(error)) from error
