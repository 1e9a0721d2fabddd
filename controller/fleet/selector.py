"""SELECTOR: which machines a command means.

    web-01                        a machine by its name or its id
    all                           every machine
    tag:web and os:debian         by tag, by operating system
    not linked                    linked: those that hold a link now
    stale>7d                      not heard of for so long (m, h, d)
    package:openssl<3.0.2         by facts of the inventory: see `controller.fleet.facts`
    (tag:a or tag:b) and not acme/web-01

Pure: the expression and what is known of the machines come in. A name that no
machine has is an error, never an empty answer. A machine that has not said whether it has
a fact is not meant, neither by the fact nor by its `not`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from controller.fleet.facts import is_fact_name, parse_fact
from protocol.errors import InvalidError, NotFoundError


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a selector may ask of a machine."""

    id: str
    tenant: str
    tenant_name: str
    name: str
    tags: frozenset[str]
    system: str
    linked: bool
    last_seen_at: datetime | None
    active: bool = True


Test = Callable[[Candidate], bool | None]
Facts = Mapping[str, Mapping[str, bool]]
"""By fact as it is written, and by machine id; who has not said is not there."""

NO_FACTS: Facts = MappingProxyType({})
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*\Z")
_WORD = re.compile(r"\s*(\(|\)|[^\s()]+)")
_STALE = re.compile(r"stale>(\d{1,5})([mhd])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_SIGN = re.compile(r"[<>=!]")
_WORDS = frozenset({"and", "or", "not", "(", ")", "all", "linked"})
_DEPTH = 50


def select_machines(
    expression: str,
    candidates: Sequence[Candidate],
    *,
    now: datetime,
    facts: Facts = NO_FACTS,
) -> list[Candidate]:
    """The active machines that the expression means, by tenant and name.

    `facts` answers for those that `facts_in` finds. Raises `InvalidError` for an expression
    that cannot be read and `NotFoundError` for a name without a machine.
    """
    test = _Parser(_split(expression), candidates, now, facts).parse()
    found = [c for c in candidates if c.active and test(c)]
    return sorted(found, key=lambda c: (c.tenant_name, c.name))


def facts_in(expression: str) -> list[str]:
    """The facts that an expression asks for, as they are written, each once.

    Raises `InvalidError` for one that cannot be compared like that.
    """
    found = dict.fromkeys(_split(expression))
    return [
        word
        for word in found
        if word not in _WORDS and not is_fact_name(word) and parse_fact(word) is not None
    ]


def names_in(expression: str) -> list[str] | None:
    """The machines that an expression names, where it can mean no others; None where it can."""
    words = dict.fromkeys(_split(expression))
    names = [word for word in words if word not in {"or", "and", "(", ")"}]
    plain = all(word not in _WORDS and _NAME.match(word) for word in names)
    return names if plain and names else None


def asks_for_system(expression: str) -> bool:
    """Whether an expression asks for the operating system, which the inventory says."""
    return any(word.startswith("os:") for word in _split(expression))


def _split(expression: str) -> list[str]:
    if len(expression) > 10_000:
        raise InvalidError("the selector is longer than 10,000 characters")
    return _WORD.findall(expression)


def _not(one: bool | None) -> bool | None:
    return None if one is None else not one


def _any(answers: Iterable[bool | None]) -> bool | None:
    """True beats not known, which beats False."""
    found = set(answers)
    return True if True in found else None if None in found else False


def _all(answers: Iterable[bool | None]) -> bool | None:
    """False beats not known, which beats True."""
    found = set(answers)
    return False if False in found else None if None in found else True


class _Parser:
    def __init__(
        self,
        words: Sequence[str],
        candidates: Sequence[Candidate],
        now: datetime,
        facts: Facts,
    ) -> None:
        self._words: Iterator[str] = iter(words)
        self._candidates = candidates
        self._now = now
        self._facts = facts
        self._depth = 0
        self._word: str | None = next(self._words, None)

    def parse(self) -> Test:
        if self._word is None:
            raise InvalidError("the selector is empty; `all` means every machine")
        test = self._either()
        if (left := self._peek()) is not None:
            raise InvalidError(f"the selector makes no sense from {left!r} on")
        return test

    def _peek(self) -> str | None:
        return self._word

    def _next(self) -> None:
        self._word = next(self._words, None)

    def _either(self) -> Test:
        tests = [self._both()]
        while self._word == "or":
            self._next()
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda c: _any(t(c) for t in tests)

    def _both(self) -> Test:
        tests = [self._single()]
        while self._word == "and":
            self._next()
            tests.append(self._single())
        return tests[0] if len(tests) == 1 else lambda c: _all(t(c) for t in tests)

    def _single(self) -> Test:
        word = self._word
        if word is None or word in {"and", "or", ")"}:
            place = "at its end" if word is None else f"before {word!r}"
            raise InvalidError(
                f"the selector lacks a machine {place}; it is written as 'tag:web and not linked'"
            )
        self._depth += 1
        if self._depth > _DEPTH:
            raise InvalidError("the selector is nested too deeply")
        self._next()
        if word == "not":
            inner = self._single()
            test: Test = lambda c: _not(inner(c))  # noqa: E731 - reads as what it is
        elif word == "(":
            test = self._either()
            if self._word != ")":
                raise InvalidError("the selector lacks a closing parenthesis")
            self._next()
        else:
            test = self._term(word)
        self._depth -= 1
        return test

    def _term(self, word: str) -> Test:
        if word == "all":
            return lambda _: True
        if word == "linked":
            return lambda c: c.linked
        key, colon, value = word.partition(":")
        if colon and not value:
            raise InvalidError(f"{word!r} lacks a value after the colon")
        if colon and key == "tag":
            return lambda c: value in c.tags
        if colon and key == "os":
            return lambda c: value.lower() in c.system.lower()
        if found := _STALE.match(word):
            limit = timedelta(**{_UNITS[found[2]]: int(found[1])})
            return lambda c: c.last_seen_at is None or self._now - c.last_seen_at > limit
        if not is_fact_name(word) and parse_fact(word) is not None:
            known = self._facts.get(word, {})
            return lambda c: known.get(c.id)
        if key == "group":
            raise InvalidError(f"groups of machines are tags: write tag:{value}")
        if colon or _SIGN.search(word):
            raise InvalidError(f"{word!r} is nothing that a selector knows; see `--help`")
        return self._named(word)

    def _named(self, name: str) -> Test:
        ids = {
            c.id for c in self._candidates if name in {c.id, c.name, f"{c.tenant_name}/{c.name}"}
        }
        if not ids:
            parse_fact(name)  # says what the fact of this name lacks
            raise NotFoundError(f"there is no machine {name!r}; `stead machine ls` lists them")
        tenants = {c.tenant for c in self._candidates if c.id in ids}
        if len(tenants) > 1:
            raise InvalidError(
                f"several tenants have a machine {name!r}: write TENANT/{name}, or name the "
                "tenant with --tenant"
            )
        return lambda c: c.id in ids
