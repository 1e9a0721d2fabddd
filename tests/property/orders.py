"""Orders of every kind, and operators who sign them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from protocol.action import ACTIONS, Action
from protocol.ids import MachineId, OrderId, TenantId, make_id
from protocol.order import Order
from protocol.rollout import Rollout
from protocol.standing import Standing

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
BYTES = st.binary(max_size=12)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 253_402_300_799_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms))


def ids(prefix: str) -> st.SearchStrategy[str]:
    return st.builds(
        lambda at, random: make_id(prefix, at_ms=at, random=random),
        st.integers(0, 2**48 - 1),
        st.binary(min_size=10, max_size=10),
    )


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values for a field of an action, by its annotation."""
    plain = {str: TEXT, bytes: BYTES, bool: st.booleans(), int: st.integers(0, 2**31 - 1)}
    if kind in plain:
        return plain[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return st.lists(of_type(arguments[0]), max_size=3).map(tuple)
    if origin in {Mapping, types.MappingProxyType}:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(kind):
        return record_of(kind)
    raise AssertionError(f"no values for {kind}")


def record_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values for a record, by the annotations of its fields."""
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind, **{field.name: of_type(hints[field.name]) for field in dataclasses.fields(kind)}
    )


def any_action() -> st.SearchStrategy[Action]:
    return st.one_of([record_of(kind) for kind in ACTIONS.values()])


def orders(action: st.SearchStrategy[Action] | None = None) -> st.SearchStrategy[Order]:
    """Orders with anything in them that has the right type; few of them make sense."""
    return st.builds(
        Order,
        id=ids("or").map(OrderId),
        tenant=ids("tn").map(TenantId),
        machines=st.lists(ids("mc").map(MachineId), max_size=3).map(tuple),
        action=any_action() if action is None else action,
        issued_at=TIMES,
        not_before=TIMES,
        deliver_by=TIMES,
        timeout=st.integers(0, 2**32 - 1).map(lambda s: timedelta(seconds=s)),
        reason=TEXT,
        repeatable=st.booleans(),
        rollout=st.none() | record_of(Rollout),
        windows=st.lists(TEXT, max_size=3).map(tuple),
        catch_up=st.booleans(),
        retry_of=st.none() | ids("or").map(OrderId),
        policy_version=st.integers(0, 2**64 - 1),
        revocations_version=st.integers(0, 2**64 - 1),
        standing=st.none() | record_of(Standing),
    )
