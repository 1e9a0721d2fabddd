"""Names and tags of machines: from what a machine calls itself to what people will type.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from protocol.errors import InvalidError
from protocol.ids import check_name

RESERVED = frozenset({"all", "and", "or", "not", "linked"})
"""Words of selectors; a machine of this name could not be picked."""

MAX_TAGS = 32

_OTHER = re.compile(r"[^a-z0-9_-]+")
_LONGEST = 55


def check_machine_name(name: str) -> str:
    """Return a name that a machine can have, raise INVALID otherwise."""
    check_name(name, what="machine's name")
    if name in RESERVED:
        raise InvalidError(f"{name!r} is a word of selectors; choose another name")
    return name


def check_tags(tags: Sequence[str]) -> None:
    """Raise INVALID for tags that cannot be, or too many of them."""
    if len(tags) > MAX_TAGS:
        raise InvalidError(f"a machine has at most {MAX_TAGS} tags")
    for tag in tags:
        check_name(tag, what="tag")


def name_from(hostname: str) -> str:
    """A machine's name after its host name: the first label, harmless.

    >>> name_from("Web 01.example.com"), name_from("…"), name_from("all")
    ('web-01', 'machine', 'all-1')
    """
    label = hostname[:253].lower().partition(".")[0]
    name = _OTHER.sub("-", label)[:_LONGEST].strip("-_") or "machine"
    return f"{name}-1" if name in RESERVED else name


def free_name(wanted: str, taken: Callable[[str], bool]) -> str:
    """The wanted name, or the first of `wanted-2`, `wanted-3`, … that is free.

    >>> free_name("web", {"web", "web-2"}.__contains__)
    'web-3'
    """
    name, number = wanted, 1
    while taken(name):
        number += 1
        name = f"{wanted}-{number}"
    return name
