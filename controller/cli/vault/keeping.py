"""`stead backup keep`, `forget`, `hold` and their like: which restore points stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import machine_meant, machines_meant, tenant_named
from controller.cli.options.usual import tenant_option, yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, from_wire_ms, note, output_option
from controller.cli.output.exits import DONE, FAILED
from controller.cli.points.chosen import choose
from controller.cli.points.opened import list_points
from controller.vault.forget.retention import FLOOR, Rules, keeps_anything
from protocol.errors import InvalidError
from protocol.v1.operator_pb2 import Machine
from protocol.v1.retention_pb2 import (
    BringBackRequest,
    ForgetRequest,
    HoldPointRequest,
    PlanForgettingRequest,
    PlanForgettingResponse,
    ReleasePointRequest,
    SetRulesRequest,
    TagPointRequest,
    UnfreezeRequest,
)

_SPAN = re.compile(r"(\d{1,5})([hdw])\Z")
_SPANS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_COUNT = click.IntRange(min=0)
_WHOLE_ID = re.compile(r"rp_[0-9a-z]{26}\Z")
_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
reason_option = click.option("--reason", required=True, help="Why; goes into the audit log.")


def add_retention(group: click.Group) -> None:
    """Add the commands of this module to `stead backup`."""
    for one in (keep, forget, unforget, hold, release, tag, unfreeze):
        group.add_command(one)


@click.command(epilog="Example: stead backup keep web-01 --last 7 --daily 14 --weekly 8")
@click.argument("selector", default="")
@click.option("--last", type=_COUNT, default=0, help="The newest so many.")
@click.option("--hourly", type=_COUNT, default=0, help="One for each of so many hours.")
@click.option("--daily", type=_COUNT, default=0, help="One for each of so many days.")
@click.option("--weekly", type=_COUNT, default=0, help="One for each of so many weeks.")
@click.option("--monthly", type=_COUNT, default=0, help="One for each of so many months.")
@click.option("--yearly", type=_COUNT, default=0, help="One for each of so many years.")
@click.option("--within", metavar="SPAN", default="", help="All of so long: 48h, 14d, 8w.")
@click.option("--tagged", multiple=True, metavar="TAG", help="All with this tag; repeatable.")
@click.option(
    "--floor",
    type=click.IntRange(min=1),
    default=FLOOR,
    show_default=True,
    help="Good points at least.",
)
@click.option("--zone", default="UTC", show_default=True, help="Where days begin: Europe/Vienna.")
@click.option("--no-rules", is_flag=True, help="Take the rules away: everything stays.")
@click.option("--default", "is_default", is_flag=True, help="For the tenant's other machines.")
@click.option("--dry-run", is_flag=True, help="Show what the rules would do; set nothing.")
@tenant_option
@output_option
@click.pass_obj
def keep(
    app: App,
    /,
    selector: str,
    *,
    no_rules: bool,
    is_default: bool,
    dry_run: bool,
    tenant: str,
    output: str,
    **options: Any,
) -> None:
    """Say which restore points stay, or without rules show what becomes of each and why.

    A point stays when any rule keeps it. Time is when the controller received it. What
    no rule keeps is forgotten once a day, and can be had back for seven days.
    """
    rules = rules_of(options)
    text = msgspec.json.encode(rules).decode() if keeps_anything(rules) else ""
    if text and no_rules:
        raise InvalidError("either rules or --no-rules, not both")
    is_setting = (bool(text) or no_rules) and not dry_run
    if is_default:
        if not is_setting or selector:
            raise InvalidError("--default takes rules or --no-rules, and no machine")
        named = tenant_named(app.connection, tenant)
        request = SetRulesRequest(tenant_id=named.tenant_id, rules=text)
        app.connection.retention.SetRules(request)
        note(f"{named.name}: the rules are in force for machines without rules of their own.")
        return
    if not selector:
        raise InvalidError("name the machines, or the tenant's others with --default")
    rows: list[dict[str, Any]] = []
    for machine in machines_meant(app.connection, selector, tenant):
        if is_setting:
            request = SetRulesRequest(machine_id=machine.machine_id, rules=text)
            app.connection.retention.SetRules(request)
        plan = _plan(app, machine, text if dry_run else "")
        rows += plan_rows(machine.name, plan)
        _say_plan(machine.name, plan)
    emit(
        rows,
        output,
        columns=("machine", "received_at", "point", "state", "reasons"),
        empty="no restore point",
    )


@click.command(epilog="Example: stead backup forget web-01 --by-rule --dry-run")
@click.argument("machine")
@click.argument("points", nargs=-1, metavar="POINT...")
@click.option("--by-rule", is_flag=True, help="Those that no rule keeps.")
@click.option("--reason", default="", help="Why, for named ones; goes into the audit log.")
@click.option("--dry-run", is_flag=True, help="Say what would go and forget nothing.")
@tenant_option
@yes_option
@output_option
@click.pass_obj
def forget(
    app: App,
    /,
    machine: str,
    points: tuple[str, ...],
    *,
    by_rule: bool,
    reason: str,
    dry_run: bool,
    tenant: str,
    yes: bool,
    output: str,
) -> int:
    """Forget restore points. For seven days `stead backup unforget` has them back."""
    if bool(points) == by_rule:
        raise InvalidError("name restore points, or say --by-rule")
    if points and not reason:
        raise InvalidError("say why: --reason TEXT")
    found = machine_meant(app.connection, machine, tenant)
    retention = app.connection.retention
    request = ForgetRequest(machine_id=found.machine_id, point_ids=points, reason=reason)
    if by_rule:
        plan = _plan(app, found, "")
        if plan.frozen:
            _say_plan(found.name, plan)
            return FAILED
        doomed = [one.point_id for one in plan.points if not one.kept]
    else:
        request.dry_run = True
        doomed = list(retention.Forget(request).point_ids)
    if doomed and not dry_run:
        many = f"{len(doomed)} restore point{'s' if len(doomed) > 1 else ''}"
        ask(f"Forget {many} of {found.name}?", yes=yes, first="look with --dry-run")
        request.dry_run = False
        doomed = list(retention.Forget(request).point_ids)
    rows = [{"machine": found.name, "point": one} for one in doomed]
    emit(rows, output, columns=("machine", "point"), empty="nothing to forget")
    if rows and dry_run:
        note("nothing was forgotten")
    return DONE


@click.command(epilog="Example: stead backup unforget web-01 rp_01kge3h9000b7zqa2mq38en0pr")
@click.argument("machine")
@click.argument("point")
@tenant_option
@click.pass_obj
def unforget(app: App, machine: str, point: str, tenant: str) -> None:
    """Have a forgotten restore point back; `stead backup keep MACHINE` names them."""
    found = machine_meant(app.connection, machine, tenant)
    request = BringBackRequest(machine_id=found.machine_id, point_id=point)
    app.connection.retention.BringBack(request)
    note(f"{point} is back.")


@click.command(
    epilog="Example: stead backup hold web-01 rp_01kge3h9000b7zqa2mq38en0pr --reason audit"
)
@click.argument("machine")
@click.argument("point")
@reason_option
@tenant_option
@click.pass_obj
def hold(app: App, machine: str, point: str, reason: str, tenant: str) -> None:
    """Keep a restore point, whatever the rules say, until it is released."""
    found = machine_meant(app.connection, machine, tenant)
    point = _id_of(app, found, point)
    request = HoldPointRequest(machine_id=found.machine_id, point_id=point, reason=reason)
    app.connection.retention.HoldPoint(request)
    note(f"{point} is on hold.")


@click.command(
    epilog="Example: stead backup release web-01 rp_01kge3h9000b7zqa2mq38en0pr --reason over"
)
@click.argument("machine")
@click.argument("point")
@reason_option
@tenant_option
@click.pass_obj
def release(app: App, machine: str, point: str, reason: str, tenant: str) -> None:
    """End a hold: the rules apply again."""
    found = machine_meant(app.connection, machine, tenant)
    point = _id_of(app, found, point)
    request = ReleasePointRequest(machine_id=found.machine_id, point_id=point, reason=reason)
    app.connection.retention.ReleasePoint(request)
    note(f"{point} is released.")


@click.command(
    epilog="Example: stead backup tag web-01 rp_01kge3h9000b7zqa2mq38en0pr --add release"
)
@click.argument("machine")
@click.argument("point")
@click.option("--add", multiple=True, metavar="TAG", help="May be repeated.")
@click.option("--remove", multiple=True, metavar="TAG", help="May be repeated.")
@tenant_option
@click.pass_obj
def tag(
    app: App, machine: str, point: str, add: tuple[str, ...], remove: tuple[str, ...], tenant: str
) -> None:
    """Tag a restore point; `--tagged` rules keep what has a tag."""
    found = machine_meant(app.connection, machine, tenant)
    point = _id_of(app, found, point)
    request = TagPointRequest(machine_id=found.machine_id, point_id=point, add=add, remove=remove)
    tags = app.connection.retention.TagPoint(request).tags
    note(f"{point}: {', '.join(tags) or 'no tags'}.")


@click.command(epilog="Example: stead backup unfreeze web-01 --reason 'photos were moved away'")
@click.argument("machine")
@reason_option
@tenant_option
@click.pass_obj
def unfreeze(app: App, machine: str, reason: str, tenant: str) -> None:
    """Let forgetting go on: the restore points that looked wrong are right."""
    found = machine_meant(app.connection, machine, tenant)
    app.connection.retention.Unfreeze(UnfreezeRequest(machine_id=found.machine_id, reason=reason))
    note(f"{found.name}: the rules apply again.")


def _id_of(app: App, machine: Machine, name: str) -> str:
    """The id of what `name` means; one that is written out may be damaged or forgotten."""
    if _WHOLE_ID.match(name):
        return name
    listed = list_points(app.connection, machine)
    return choose(listed, name, machine=machine.name, now=clock.now()).id


def rules_of(options: dict[str, Any]) -> Rules:
    """Rules from a command line's options; INVALID for figures that are none."""
    values = {name: options[name] for name in (*_COUNTS, "floor", "zone")}
    values |= {"within_s": parse_span(options["within"]), "tags": list(options["tagged"])}
    try:
        return msgspec.convert(values, type=Rules)
    except msgspec.ValidationError as error:
        raise InvalidError(f"these are no rules: {error}") from error


def parse_span(text: str) -> int:
    """Seconds; 0 where nothing was said.

    >>> parse_span("14d"), parse_span("")
    (1209600, 0)
    """
    if not text:
        return 0
    found = _SPAN.match(text)
    if found is None or not int(found[1]):
        raise InvalidError(f"{text[:40]!r} is not a span such as 48h, 14d or 8w")
    return int(found[1]) * _SPANS[found[2]]


def plan_rows(machine: str, plan: PlanForgettingResponse) -> Sequence[dict[str, Any]]:
    """A plan as records, the newest restore point first."""
    return [
        {
            "machine": machine,
            "received_at": from_wire_ms(one.received_at_ms),
            "point": one.point_id,
            "state": "keep" if one.kept else ("frozen" if plan.frozen else "forget"),
            "reasons": list(one.reasons),
            "tags": list(one.tags),
        }
        for one in plan.points
    ]


def _plan(app: App, machine: Machine, rules: str) -> PlanForgettingResponse:
    request = PlanForgettingRequest(machine_id=machine.machine_id, rules=rules)
    return app.connection.retention.PlanForgetting(request)


def _say_plan(machine: str, plan: PlanForgettingResponse) -> None:
    if not plan.rules:
        note(f"{machine}: there are no rules, so everything stays")
    if plan.frozen:
        note(
            f"{machine}: nothing is forgotten, {plan.frozen_point_id} looks wrong: "
            f"{'; '.join(plan.frozen)}. Look at it, then "
            f"`stead backup unfreeze {machine} --reason TEXT`"
        )
    for point in plan.forgotten:
        note(f"{machine}: {point} was forgotten; `stead backup unforget` has it back")
