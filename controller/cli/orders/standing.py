"""Have machines take a standing order in, and show how standing orders stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from controller.cli.operator.connection import Connection
from controller.cli.options.terms import Terms
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import heard, result_of, say_failures, task_rows
from controller.cli.output.emit import emit, from_wire_ms, local_time, note
from controller.cli.output.exits import DONE
from protocol.action import Action
from protocol.v1.job_pb2 import ListStandingRequest, StandingMachine, StandingOrder
from protocol.v1.operator_pb2 import Machine


def order_standing(
    connection: Connection,
    machines: Sequence[Machine],
    action: Action,
    terms: Terms,
    *,
    output: str,
    repeatable: bool = False,
) -> int:
    """Order what machines are to do again and again, and say who has taken it in."""
    job = order_and_follow(
        connection,
        machines,
        action,
        terms,
        output=output,
        repeatable=repeatable,
        only_linked=True,
    )
    if job is None:
        return DONE
    rows = [
        {**row, "next_run_at": result_of(task).get("next_at")}
        for row, task in zip(task_rows(job), job.tasks, strict=True)
    ]
    emit(
        rows,
        output,
        columns=("machine", "state", "next_run_at"),
        cells={"next_run_at": lambda row: _moment(row["next_run_at"])},
    )
    say_failures(job)
    note(f"`stead order show {job.job_id}` shows how it goes on; `stead order revoke` ends it.")
    return heard(job)


def standing_orders(
    connection: Connection, request: ListStandingRequest
) -> Iterator[StandingOrder]:
    """The standing orders that are asked for, newest first, page by page."""
    asked = ListStandingRequest()
    asked.CopyFrom(request)
    while True:
        page = connection.jobs.ListStanding(asked)
        yield from page.orders
        if not page.go_on_before:
            return
        asked.before_order_id = page.go_on_before


def order_row(order: StandingOrder) -> dict[str, Any]:
    """A standing order as a record, with how many of its machines stand how."""
    return {
        "order": order.order_id,
        "name": order.name,
        "action": order.action,
        "summary": order.summary.removeprefix(f"{order.schedule}: "),
        "schedule": order.schedule,
        "ends_at": from_wire_ms(order.ends_at_ms),
        "max_runs": order.max_runs or None,
        "operator": order.operator,
        "reason": order.reason,
        "submitted_at": from_wire_ms(order.submitted_at_ms),
        "machines": sum(order.counts.values()),
        "states": dict(order.counts),
    }


def machine_row(order: StandingOrder, machine: StandingMachine) -> dict[str, Any]:
    """How a standing order stands on a machine, as a record."""
    return {
        "order": order.order_id,
        "machine": machine.machine_name,
        "machine_id": machine.machine_id,
        "state": machine.state,
        "taken_in_at": from_wire_ms(machine.taken_in_at_ms),
        "runs": machine.runs,
        "last_run_at": from_wire_ms(machine.last_run_at_ms),
        "last_state": machine.last_state,
        "last_job": machine.last_job_id,
        "next_run_at": from_wire_ms(machine.next_run_at_ms),
        "message": machine.message,
    }


def _moment(text: str | None) -> str:
    """A time as a machine's answer has it, in the zone of whoever reads."""
    try:
        return f"{local_time(datetime.fromisoformat(text)):%Y-%m-%d %H:%M}" if text else "–"
    except (ValueError, TypeError):
        return "–"


def render_counts(row: Mapping[str, Any]) -> str:
    """How many machines stand how.

    >>> render_counts({"states": {"in force": 3, "sent": 1}})
    '3 in force, 1 sent'
    """
    ordered = sorted(row["states"].items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {state}" for state, count in ordered)
