"""Messages that are as a good one is but for one field, which says something extreme.

Made from the descriptors: for every field of a message, and of those inside it, every value
that its type takes and that nobody means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

TEXTS = (
    "",
    " ",
    "..",
    "/",
    "a..b",
    "nul\0nul",
    "line\nline",
    "\x1b]0;title\x07\x1b[2J",
    "\u202eevil\u2066",
    "\ufeff\u200b\ufffe\uffff",
    "\U0010ffff",
    "a" * 70_000,
    "%n%s{0}{x!r}",
    "*" * 300 + "[",
    "(a+)+" * 50 + "$",
    "[" * 2000,
    "9" * 5000,
    "-1",
    "NaN",
    "9999-12-31T23:59:59Z",
    "0000-00-00",
)
DATA = (
    b"",
    b"\0",
    b"\0" * 32,
    b"\xff" * 32,
    b"\xff" * 65,
    b"/" + b"a" * 70_000,
    b"/..",
    b"/\0",
    b"/\xff\xfe\n",
    b"[" * 2000,
    b"[" * 200_000,
    b"{" + b'"a":{' * 5000,
    b'{"a": NaN, "b": 1e999, "c": 123456789012345678901234567890}',
    b"\xdf\xff\xff\xff\xff",
    b"\x30\x80" * 500,
    b"\x30\x84\xff\xff\xff\xff",
    b"(\xb5/\xfd\x04\x00" + b"\xff" * 50,
)
NEGATIVE = (-1, -(2**31), -(2**31) - 1, -(2**63))
TIMES = (
    253_402_300_799_000,  # the last second of year 9999
    253_402_300_800_000,
    -62_135_596_800_000,  # year 1
    -62_135_596_800_001,
    86_399_999_999_999 * 1000,  # the longest timedelta in seconds, and then in days
    999_999_999 * 86_400_000,
)
POSITIVE = (0, 1, 86_400, 2**31 - 1, 2**31, 2**32 - 1)
HUGE = (2**32, 2**53 + 1, 2**63 - 1)

NUMBERS: Mapping[int, tuple[int, ...]] = {
    FieldDescriptor.TYPE_INT32: (0, 1, 2**31 - 1, -1, -(2**31)),
    FieldDescriptor.TYPE_SINT32: (0, 1, 2**31 - 1, -1, -(2**31)),
    FieldDescriptor.TYPE_UINT32: POSITIVE,
    FieldDescriptor.TYPE_INT64: POSITIVE + HUGE + NEGATIVE + TIMES,
    FieldDescriptor.TYPE_UINT64: (*POSITIVE, *HUGE, 2**63, 2**64 - 1, *TIMES[:2], *TIMES[4:]),
    FieldDescriptor.TYPE_ENUM: (0, 1, 99, -1, 2**31 - 1),
    FieldDescriptor.TYPE_BOOL: (0, 1),
}
M = TypeVar("M", bound=Message)
MANY = 2000

Way = tuple[str | int, ...]
"""Names of fields, and places in lists, from a message to one inside it."""

Change = Callable[[Any], object]


def values(one: FieldDescriptor) -> tuple[Any, ...]:
    """What a field of this type takes, and nobody means."""
    if one.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    return DATA if one.type == FieldDescriptor.TYPE_BYTES else NUMBERS[one.type]


def changed(good: M, only: str | None = None) -> Iterator[tuple[str, M]]:
    """Every change of one field of a message, with words that say which.

    `only` is the one field that is changed, or in which something is.
    """
    for label, change in _changes(good, (), only):
        message = deepcopy(good)
        change(message)
        yield label, message


def _changes(message: Any, way: Way, only: str | None = None) -> Iterator[tuple[str, Change]]:
    for one in message.DESCRIPTOR.fields:
        if only in (None, one.name):
            yield from _of_field(message, one, way)


def _of_field(message: Any, one: FieldDescriptor, way: Way) -> Iterator[tuple[str, Change]]:
    name = ".".join(str(step) for step in (*way, one.name))
    if one.containing_oneof is not None and not message.HasField(one.name):
        return
    inner = one.message_type
    if inner is not None and inner.GetOptions().map_entry:
        for kind in ("key", "value"):
            for value in values(inner.fields_by_name[kind]):
                yield f"{name} {kind} {value!r:.60}", _entry(way, one.name, **{kind: value})
        return
    yield f"{name} unset", lambda m: _at(m, way).ClearField(one.name)
    if inner is not None:
        if one.is_repeated:
            if getattr(message, one.name):
                yield from _changes(getattr(message, one.name)[0], (*way, one.name, 0))
                yield f"{name} many", lambda m: _repeat(_at(m, way), one.name)
            yield f"{name} one empty", lambda m: getattr(_at(m, way), one.name).add()
        elif message.HasField(one.name):
            yield from _changes(getattr(message, one.name), (*way, one.name))
            yield f"{name} empty", lambda m: _empty(_at(m, way), one.name)
        return
    for value in values(one):
        yield f"{name} = {value!r:.60}", _set(way, one, value)
    if one.is_repeated and getattr(message, one.name):
        yield f"{name} many", lambda m: _repeat(_at(m, way), one.name)
        yield f"{name} twice", lambda m: _twice(_at(m, way), one.name)


def _at(message: Any, way: Way) -> Any:
    for step in way:
        message = message[step] if isinstance(step, int) else getattr(message, step)
    return message


def _set(way: Way, one: FieldDescriptor, value: Any) -> Change:
    def change(message: Any) -> None:
        holder = _at(message, way)
        if one.is_repeated:
            holder.ClearField(one.name)
            getattr(holder, one.name).append(value)
        else:
            setattr(holder, one.name, value)

    return change


def _repeat(message: Any, name: str) -> None:
    field = getattr(message, name)
    first = deepcopy(field[0])
    field.extend([first] * MANY)


def _twice(message: Any, name: str) -> None:
    field = getattr(message, name)
    field.append(deepcopy(field[0]))


def _empty(message: Any, name: str) -> None:
    message.ClearField(name)
    getattr(message, name).SetInParent()


def _entry(way: Way, name: str, *, key: Any = None, value: Any = None) -> Change:
    def change(message: Any) -> None:
        entries = getattr(_at(message, way), name)
        names = list(entries) or ["key"]
        if value is None:
            entries[key] = entries[names[0]]
        else:
            entries[names[0]] = value

    return change
