"""What an operator is shown before signing an order that somebody else wrote.

Read from the very bytes that are to be signed, never from what the controller says of them.
Pure, but for the names of machines, which only the controller knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from controller.cli.options.repeating import render_standing
from controller.cli.output.emit import render_names
from protocol.action import Action, RunScript, name_of
from protocol.approval import Approval
from protocol.order import Order, Signer
from protocol.rollout import render_amount, render_batches
from protocol.summary import summary_of

LONG = 200
"""Of longer values the length alone is shown, unless all is asked for."""

NAMED = 10
"""So many machines are named before an order is signed, unless all are asked for."""


def review_row(
    order: Order, approval: Approval, names: Mapping[str, str], *, whole: bool
) -> dict[str, Any]:
    """An order as a record: all that a machine will do by it, and who signed.

    `names` are the machines' names by id. `whole` also shows long values, such as a script.
    """
    row: dict[str, Any] = {
        "job": order.id,
        "action": name_of(order.action),
        "summary": summary_of(order.action),
        **details_of(order.action, whole=whole),
        "machines": [names.get(machine, machine) for machine in order.machines],
        "reason": order.reason,
        "signed_by": _names(approval.counted),
        "proposed_by": _names(approval.proposed),
        "signatures_missing": approval.missing,
        "issued_at": order.issued_at,
        "not_before": order.not_before,
        "deliver_by": order.deliver_by,
        "timeout_s": int(order.timeout.total_seconds()),
    }
    row["repeatable"] = order.repeatable
    if order.rollout is not None:
        row["batches"] = render_batches(order.rollout.batches)
        row["soak_s"] = order.rollout.soak_s
        row["max_failures"] = render_amount(order.rollout.max_failures)
    if order.windows:
        row["windows"] = list(order.windows)
        row["catch_up"] = order.catch_up
    if order.standing is not None:
        row["standing"] = render_standing(order.standing).removeprefix(", ")
    if order.retry_of is not None:
        row["retry_of"] = order.retry_of
    return row


def for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose lists of arguments show where each one begins and ends.

    Of many machines the first are named, and all are counted.
    """
    shown = {
        name: str(value) if "." in name and isinstance(value, list) else value
        for name, value in row.items()
    }
    machines = row.get("machines", ())
    if len(machines) > NAMED:
        few = render_names(machines, NAMED)
        shown["machines"] = f"{len(machines)}: {few}; --show names all"
    return shown


def lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    """A record for people, a line for each value that says something.

    What somebody else wrote cannot make lines of its own.
    """
    for name, value in for_people(row).items():
        if isinstance(value, bool):
            yield f"{name}: {'yes' if value else 'no'}"
        elif value not in ("", None, [], 0):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            if isinstance(value, datetime):
                shown = f"{value:%Y-%m-%d %H:%M:%S}Z"
            yield _on_a_line(f"{name}: {shown}")


def long_lines(order: Order, machines: Sequence[str]) -> Iterator[str]:
    """What is too much for a line of its own: a script, line by line, and each machine."""
    if isinstance(order.action, RunScript):
        for line in order.action.body.decode(errors="backslashreplace").splitlines():
            yield f"  | {line}"
    for name in machines:
        yield f"  - {_on_a_line(name)}"


def _on_a_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def details_of(action: Action, *, whole: bool) -> dict[str, Any]:
    """What an action says beside its name.

    Values that say nothing are left out; of a choice it is said which way it was made.
    """
    found = dict(_details(name_of(action), action, whole=whole))
    if isinstance(action, RunScript) and not whole:
        found["run_script.body"] = f"{len(action.body)} bytes; --show shows them"
    return found


def _details(name: str, said: Any, *, whole: bool) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(said):
        inner, value = f"{name}.{field.name}", getattr(said, field.name)
        if dataclasses.is_dataclass(value):
            yield from _details(inner, value, whole=whole)
            continue
        value = _plain(value)
        if isinstance(value, str) and len(value) > LONG and not whole:
            value = f"{len(value)} characters; --show shows them"
        if value or isinstance(value, bool):
            yield inner, value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        parts = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {name: part for name, part in parts.items() if part or isinstance(part, bool)}
    return value


def _names(signers: Sequence[Signer]) -> list[str] | None:
    return [f"{one.identity.name} ({one.identity.role})" for one in signers] or None
