"""What a section is, and how its facts become the same bytes every time.

A body is canonical JSON: an envelope with the fields section, schema, status, reason
and facts, in that order. Equal facts give equal bytes, so the hash of a body says
whether anything changed. Every string that came from the machine passes `inert`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from agent.inventory.sources import Sources
from protocol.errors import UnavailableError

STRING_LIMIT = 4096
BODY_LIMIT_BYTES = 3 * 1024 * 1024

_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a section found out.

    `gaps` names the parts that could not be learnt, with the reason, so that a field
    that is null or a list that is empty is never mistaken for "there is none".
    """

    gaps: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Section:
    """One topic of facts: how it is collected, how often, and how long that may take."""

    name: str
    schema: int
    collect: Callable[[Sources], Facts]
    budget_s: float = 10.0
    every_s: float = 3600.0


class Envelope(msgspec.Struct, frozen=True):
    """A section's body, as it is encoded."""

    section: str
    schema: int
    status: Literal["ok", "unavailable"]
    reason: str | None
    facts: Any


def encode_facts(section: Section, facts: Facts) -> bytes:
    """The body of a section whose facts are known.

    Raises `UnavailableError` when the body would exceed `BODY_LIMIT_BYTES`: part
    of a table, sent as if it were all of it, would be a lie.
    """
    plain = inert(msgspec.to_builtins(facts, order="deterministic"))
    body = _encode(Envelope(section.name, section.schema, "ok", None, plain))
    if len(body) > BODY_LIMIT_BYTES:
        raise UnavailableError(
            f"the facts take more than {BODY_LIMIT_BYTES} bytes and were not kept"
        )
    return body


def encode_unavailable(section: Section, reason: str) -> bytes:
    """The body of a section whose facts could not be had."""
    said = _inert_text(reason) or "no reason given"
    return _encode(Envelope(section.name, section.schema, "unavailable", said, None))


def _encode(envelope: Envelope) -> bytes:
    return msgspec.json.encode(envelope, order="deterministic")


def inert(value: Any) -> Any:
    r"""A copy whose strings are valid UTF-8, bounded, and harmless on a terminal.

    Bytes that are no UTF-8 (kept as surrogates by whoever decoded them), control
    characters and marks that turn the direction of writing become backslash escapes.

    >>> inert(["a\x1b[31mb", b"caf\xe9".decode("utf-8", "surrogateescape")])
    ['a\\x1b[31mb', 'caf\\xe9']
    """
    if isinstance(value, str):
        return _inert_text(value)
    if isinstance(value, dict):
        return {_inert_text(str(key)): inert(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [inert(item) for item in value]
    return value


def _inert_text(text: str) -> str:
    if len(text) > STRING_LIMIT:
        text = text[: STRING_LIMIT - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
