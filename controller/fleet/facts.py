"""Facts that a selector may ask for, and whether an inventory has them. Pure.

    os.version>=12     cpu.cores>=8      memory<8g      arch=x86_64     cpu.model:xeon
    package:openssl    package:openssl<3.0.2            service:nginx   service:nginx=running
    update:openssl     port:443

A machine that has not said is neither in nor out: `None`. Versions of packages compare as
their package manager compares them; sizes are in bytes, with k, m, g and t for 1024 and
its powers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from controller.fleet.version_order import compare_versions
from protocol.errors import UNREADABLE, InvalidError

MAX_FACTS: Final = 50
_LONGEST: Final = 300


class Kind(Enum):
    """What kind of value a fact has."""

    NUMBER = "a number"
    SIZE = "a size such as 8g"
    VERSION = "a version"
    TEXT = "a text, compared with =, != and : (contains)"


@dataclass(frozen=True, slots=True)
class Fact:
    """A question about a section. `key` is a path, or a table's row; an empty `sign` asks
    whether there is one.
    """

    name: str
    key: str
    sign: str
    value: str


_PATHS: Final[Mapping[str, tuple[str, tuple[str, ...], Kind]]] = {
    "os.id": ("system", ("os", "id"), Kind.TEXT),
    "os.version": ("system", ("os", "version"), Kind.VERSION),
    "os.codename": ("system", ("os", "codename"), Kind.TEXT),
    "kernel": ("system", ("kernel",), Kind.VERSION),
    "arch": ("system", ("arch",), Kind.TEXT),
    "vendor": ("system", ("hardware", "vendor"), Kind.TEXT),
    "product": ("system", ("hardware", "product"), Kind.TEXT),
    "cpu.cores": ("cpu", ("cores",), Kind.NUMBER),
    "cpu.threads": ("cpu", ("threads",), Kind.NUMBER),
    "cpu.model": ("cpu", ("model",), Kind.TEXT),
    "memory": ("memory", ("total_bytes",), Kind.SIZE),
}
_TABLES: Final[Mapping[str, tuple[str, str, str, str, Kind]]] = {
    "package": ("packages", "packages", "name", "version", Kind.VERSION),
    "service": ("services", "services", "name", "state", Kind.TEXT),
    "update": ("updates", "updates", "name", "candidate", Kind.VERSION),
    "port": ("ports", "ports", "port", "protocol", Kind.TEXT),
}
"""By word: the section, its table, and the columns of the name and of the value."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9.+:~_@-]+\Z", re.ASCII)
_BETWEEN_ROWS: Final = frozenset({b"[]", b"[,", b",]", b",,"})
_FACT: Final = re.compile(r"([a-z.]+)(?::([^<>=!]+))?(?:(<=|>=|!=|<|>|=)(.+))?\Z")
_SIZES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,15})([kmgt]?)\Z", re.ASCII)
_SIGNS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


def parse_fact(word: str) -> Fact | None:
    """A fact as it is written; None for a word that asks for none.

    Raises `InvalidError` for one that cannot be compared like that.

    >>> render_fact(parse_fact("package:openssl<3.0.2"))
    'package:openssl<3.0.2'
    """
    found = _FACT.match(word)
    if found is None or found[1] not in (*_PATHS, *_TABLES):
        return None
    name, key, sign, value = found[1], found[2] or "", found[3] or "", found[4] or ""
    if name in _TABLES:
        if not key:
            raise InvalidError(f"{word[:80]!r} lacks a name: write {name}:NAME")
        kind = _TABLES[name][4]
    else:
        kind = _PATHS[name][2]
        if key and sign:
            raise InvalidError(f"{word[:80]!r} compares twice; write {name}=VALUE or {name}:TEXT")
        if key:
            sign, value, key = ":", key, ""
        if not sign:
            raise InvalidError(f"{word[:80]!r} lacks a value: it is {kind.value}")
    _check(word, sign, value, kind)
    return Fact(name, key, sign, value)


def is_fact_name(word: str) -> bool:
    """Whether a word is the name of a fact and says nothing of it: it may be a machine's name."""
    return word in _PATHS or word in _TABLES


def read_facts(words: Sequence[str]) -> list[Fact]:
    """Facts that somebody asks for at once; raises `InvalidError` for what is none."""
    if len(words) > MAX_FACTS:
        raise InvalidError(f"a selector asks for at most {MAX_FACTS} facts")
    facts = []
    for word in words:
        if len(word) > _LONGEST or (fact := parse_fact(word)) is None:
            raise InvalidError(f"{word[:80]!r} is no fact of the inventory")
        facts.append(fact)
    return facts


def render_fact(fact: Fact) -> str:
    """The fact as `parse_fact` reads it."""
    key = f":{fact.key}" if fact.key else ""
    return f"{fact.name}{key}{fact.sign}{fact.value}"


def section_of(fact: Fact) -> str:
    """The section of the inventory that answers."""
    return _TABLES[fact.name][0] if fact.name in _TABLES else _PATHS[fact.name][0]


def holds(fact: Fact, body: bytes) -> bool | None:
    """Whether it is so by a section's body; None when the body does not say."""
    if fact.name in _TABLES and (rows := _rows_with(fact, body)) is not None:
        return _any_fits(fact, rows, None)
    try:
        facts = msgspec.json.decode(body, type=_Body).facts
    except UNREADABLE:
        return None
    if facts is None:
        return None
    if fact.name in _TABLES:
        return _in_table(fact, facts)
    _, path, kind = _PATHS[fact.name]
    value: Any = facts
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return _fits(str(value), fact.sign, fact.value, kind, "")


class _Body(msgspec.Struct):
    facts: dict[str, Any] | None = None


def _in_table(fact: Fact, facts: Mapping[str, Any]) -> bool | None:
    rows = facts.get(_TABLES[fact.name][1])
    if not isinstance(rows, list):
        return None
    return _any_fits(fact, rows, facts.get("manager"))


def _rows_with(fact: Fact, body: bytes) -> list[Any] | None:
    """The rows of a table in which the name occurs, without reading all others.

    Of ten thousand lists of packages each has a thousand rows, and one of them is asked for.
    None where the text does not show for certain what reading the whole of it would.
    """
    key = fact.key.encode()
    table = f'"{_TABLES[fact.name][1]}":['.encode()
    if _PLAIN.match(fact.key) is None or body.count(table) != 1 or b"\\" in body:
        return None
    at = body.index(table)
    rows = []
    while (at := body.find(key, at)) >= 0:
        before, after = body[at - 1 : at], body[at + len(key) : at + len(key) + 9]
        if not before.strip() or not after[:1].strip():
            return None
        whole = before == b'"' and after.startswith((b'"', b'.service"'))
        if not whole and not (before == b":" and after[:1] in b",}"):
            at += 1  # a part of another word
            continue
        begin, end = body.rfind(b"{", 0, at), body.find(b"}", at)
        if body[begin - 1 : begin] + body[end + 1 : end + 2] not in _BETWEEN_ROWS:
            return None
        try:
            row = msgspec.json.decode(body[begin : end + 1])
        except UNREADABLE:
            return None
        if not isinstance(row, dict) or any(isinstance(one, dict | list) for one in row.values()):
            return None
        rows.append(row)
        at = end
    # Versions only where each row says by which manager it is: else the table has one for all.
    by_manager = _TABLES[fact.name][4] is Kind.VERSION
    return rows if not by_manager or all("manager" in row for row in rows) else None


def _any_fits(fact: Fact, rows: list[Any], manager: object) -> bool:
    _, _, name, column, kind = _TABLES[fact.name]
    return any(
        not fact.sign
        or _fits(
            str(row.get(column)), fact.sign, fact.value, kind, str(row.get("manager", manager))
        )
        for row in _named(rows, name, fact.key)
    )


def _named(rows: list[Any], column: str, wanted: str) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        if isinstance(row, dict) and str(row.get(column, "")).removesuffix(".service") == wanted:
            yield row


def _fits(known: str, sign: str, wanted: str, kind: Kind, manager: str) -> bool | None:
    if kind is Kind.TEXT:
        known, wanted = known.lower(), wanted.lower()
        return wanted in known if sign == ":" else _SIGNS[sign](known, wanted)
    if kind is Kind.VERSION:
        if sign == ":":
            return wanted in known
        return _SIGNS[sign](compare_versions(known, wanted, manager), 0)
    if not known.isdigit():
        return None
    return _SIGNS[sign](int(known), _size(wanted) if kind is Kind.SIZE else int(wanted))


def _check(word: str, sign: str, value: str, kind: Kind) -> None:
    good = True
    if kind is Kind.TEXT:
        good = sign in {"", "=", "!=", ":"}
    elif kind is Kind.NUMBER:
        good = value.isascii() and value.isdigit() and len(value) < 16 and sign != ":"
    elif kind is Kind.SIZE:
        good = _SIZE.match(value.lower()) is not None and sign != ":"
    if not good:
        raise InvalidError(f"{word[:80]!r} cannot be compared: it is {kind.value}")


def _size(text: str) -> int:
    found = _SIZE.match(text.lower())
    assert found is not None
    return int(found[1]) * _SIZES[found[2]]
