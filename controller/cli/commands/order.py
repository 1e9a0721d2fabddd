"""`stead order`: standing orders, which machines carry out again and again by themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import machines_meant, machines_of, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.options.terms import acting, terms_of
from controller.cli.options.usual import tenant_option
from controller.cli.orders.job_rows import shortened
from controller.cli.orders.ordering import confirm, order_and_follow
from controller.cli.orders.outcomes import heard, say_failures
from controller.cli.orders.retrying import signed_order
from controller.cli.orders.standing import machine_row, order_row, render_counts, standing_orders
from controller.cli.output.emit import console, emit, emit_one, note, output_option
from controller.cli.output.exits import DONE
from protocol.action import RevokeStanding
from protocol.codec import from_ms, to_ms
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import Role
from protocol.order import Order
from protocol.standing import LONGEST
from protocol.summary import summary_of
from protocol.v1.job_pb2 import CancelJobRequest, ListStandingRequest, StandingOrder

MACHINE_COLUMNS = ("machine", "state", "taken_in_at", "runs", "last_run_at", "last_state")
GONE = frozenset({"revoked", "refused"})
MINIMUM = timedelta(days=1)


@click.group(epilog="Example: stead order ls")
def command() -> None:
    """Standing orders: what machines do again and again by themselves.

    `--every` makes one, with `stead run`, `script`, `patch scan` and `snapshot take`.
    """


@command.command(epilog="Example: stead order ls tag:web")
@click.argument("selector", default="")
@click.option("--all", "with_ended", is_flag=True, help="Those that are over as well.")
@tenant_option
@output_option
@click.pass_obj
def ls(app: App, selector: str, tenant: str, output: str, *, with_ended: bool) -> None:
    """List standing orders, or how they stand on the machines that SELECTOR means."""
    connection = app.connection
    request = ListStandingRequest(
        tenant_id=tenant_named(connection, tenant).tenant_id if tenant else "",
        with_ended=with_ended,
    )
    if not selector:
        emit(
            [order_row(order) for order in standing_orders(connection, request)],
            output,
            columns=("name", "summary", "schedule", "ends_at", "states", "operator", "order"),
            cells={"states": render_counts, "summary": lambda row: shortened(row["summary"], 40)},
            empty="there is no standing order" + ("" if with_ended else " in force"),
        )
        return
    meant = [machine.machine_id for machine in machines_meant(connection, selector, tenant)]
    request.machine_ids.extend(meant)
    rows = [
        {**machine_row(order, machine), **_what(order)}
        for order in standing_orders(connection, request)
        for machine in order.machines
        if with_ended or machine.state not in GONE
    ]
    emit(
        rows,
        output,
        columns=("machine", "summary", "schedule", "state", "runs", "last_state", "order"),
        cells={"summary": lambda row: shortened(row["summary"], 40)},
        empty="no standing order is meant for them",
    )


@command.command(epilog="Example: stead order show nightly")
@click.argument("order")
@tenant_option
@output_option
@click.pass_obj
def show(app: App, order: str, tenant: str, output: str) -> None:
    """Show a standing order and how it stands on each machine. ORDER is an id or a name."""
    found = _meant(app.connection, order, tenant)
    row = order_row(found)
    machines = [machine_row(found, machine) for machine in found.machines]
    if output != "table":
        emit_one({**row, "machines": machines}, output)
        return
    row["states"] = render_counts(row)
    emit_one(row, output)
    console().print()
    emit(machines, output, columns=(*MACHINE_COLUMNS, "next_run_at"))
    for one in machines:
        if one["message"]:
            note(f"{one['machine']}: {one['message']}")
    if any(one["runs"] for one in machines):
        note(f"`stead job ls --order {found.order_id}` lists its runs.")


@command.command(epilog="Example: stead order revoke nightly --reason 'moved to the new host'")
@click.argument("order")
@acting
@output_option
@click.pass_obj
def revoke(app: App, /, order: str, output: str, **options: Any) -> int:
    """End a standing order everywhere. ORDER is an id or a name.

    By an order of its own, which you sign and machines verify. A machine that is away gets it
    before anything else when it is back; until then it goes on. A run that has begun goes on
    to its end: `stead job cancel` ends it.
    """
    connection = app.connection
    found = _meant(connection, order, options["tenant"])
    ends_at = from_ms(found.ends_at_ms)
    if options["deliver_by"] is None:
        options["deliver_by"] = max(ends_at - clock.now(), MINIMUM)
    terms = terms_of(options)
    left = {one.machine_id for one in found.machines if one.state not in GONE}
    machines = [machine for machine in machines_of(connection, left) if machine.state == "active"]
    if not machines:
        note("It is in force on no machine.")
        return DONE
    action = RevokeStanding(found.order_id, to_ms(_taken_in_until(connection, found, order)))
    if not terms.dry_run:
        confirm(machines, summary_of(action), terms)
        terms = replace(terms, yes=True)
        if not terms.propose:
            # What has not reached its machine need not; those machines are told all the same.
            connection.jobs.CancelJob(CancelJobRequest(job_id=found.order_id))
    job = order_and_follow(
        connection, machines, action, terms, output=output, repeatable=True, only_linked=True
    )
    if job is None:
        return DONE
    after = _meant(connection, found.order_id, "")
    rows = [machine_row(after, one) for one in after.machines if one.machine_id in left]
    emit(rows, output, columns=("machine", "state", "runs", "last_run_at"))
    say_failures(job)
    return heard(job)


def _what(order: StandingOrder) -> dict[str, Any]:
    row = order_row(order)
    return {name: row[name] for name in ("summary", "schedule", "name")}


def _taken_in_until(connection: Connection, found: StandingOrder, named: str) -> datetime:
    """Until when a machine might still take the order in, which it then remembers not to."""
    if connection.operator.role is not Role.HELPDESK:
        return _signed(connection, found, named).deliver_by
    # Who only proposes does not read the orders of others; whoever approves names the id.
    return max(from_ms(found.deliver_by_ms), clock.now() + LONGEST)


def _signed(connection: Connection, found: StandingOrder, named: str) -> Order:
    """The order that was signed; the controller is not trusted with what it says of it."""
    order = signed_order(connection, found.order_id)
    if order.standing is None or named not in {order.id, order.standing.name}:
        raise SteadError(
            f"the controller gave an order that is not the standing order {named}",
            code=Code.BAD_SIGNATURE,
        )
    return order


def _meant(connection: Connection, order: str, tenant: str) -> StandingOrder:
    """A standing order by its id, or by the name of the only one that is in force."""
    if order.startswith("or_"):
        request = ListStandingRequest(order_id=order)
        named = [o for o in connection.jobs.ListStanding(request).orders if o.order_id == order]
        if not named:
            raise NotFoundError(f"there is no standing order {order}; `stead order ls` lists them")
        return named[0]
    only = tenant_named(connection, tenant).tenant_id if tenant else ""
    for with_ended in (False, True):
        request = ListStandingRequest(tenant_id=only, name=order, with_ended=with_ended)
        found = [one for one in standing_orders(connection, request) if one.name == order]
        if len(found) > 1 and not with_ended:
            raise InvalidError(
                f"several standing orders are called {order}: name one by its id, as "
                "`stead order ls` shows it"
            )
        if found:
            return _meant(connection, found[0].order_id, "")
    raise NotFoundError(f"there is no standing order {order!r}; `stead order ls` lists them")
