"""`stead machine`: the enrolled machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.commands.rehome import rehome
from controller.cli.operator.choice import (
    known_facts,
    known_machines,
    machine_meant,
    machines_meant,
    say_unknown,
    tenant_names,
)
from controller.cli.operator.recognising import recognise
from controller.cli.options.usual import tenant_option, yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import (
    Row,
    emit,
    emit_one,
    from_wire_ms,
    note,
    output_option,
    render_age,
)
from controller.cli.vault.proved import drill_state
from controller.fleet.selector import Candidate, names_in, select_machines
from protocol.abreast import abreast
from protocol.errors import Code, InvalidError, SteadError
from protocol.v1.operator_pb2 import (
    ApproveMachineRequest,
    Machine,
    RenameMachineRequest,
    RetireMachineRequest,
    RevokeMachineRequest,
    TagMachineRequest,
)

AT_ONCE = 8
"""Machines that are changed beside one another: they share what the controller's disk costs."""

COLUMNS = (
    "name",
    "tenant",
    "state",
    "last_seen_at",
    "system",
    "updates",
    "last_point_at",
    "drill",
    "tags",
)


@click.group(epilog="Example: stead machine ls")
def command() -> None:
    """Machines: list, name, tag, approve, retire, revoke."""


@command.command(epilog="Example: stead machine ls 'tag:web and not linked'")
@click.argument("selector", default="")
@tenant_option
@output_option
@click.pass_obj
def ls(app: App, selector: str, tenant: str, output: str) -> None:
    """List machines, all of them or those that a selector means."""
    connection = app.connection
    listed, names = known_machines(connection, tenant, named=names_in(selector) or ())
    now = clock.now()
    rows = [machine_row(machine, names) for machine in listed]
    if selector:
        facts = known_facts(connection, selector, tenant)
        candidates = [_candidate(row) for row in rows]
        meant = {c.id for c in select_machines(selector, candidates, now=now, facts=facts)}
        rows = [row for row in rows if row["id"] in meant]
        say_unknown(facts, listed)
    emit(
        rows,
        output,
        columns=COLUMNS,
        cells={
            "state": render_state,
            "last_seen_at": lambda row: render_age(row["last_seen_at"], now),
            "system": lambda row: str(row["system"]).partition(" (")[0],
            "updates": lambda row: render_updates(row["updates"], row["security_updates"]),
            "last_point_at": lambda row: render_backup(row, now),
            "drill": lambda row: drill_state(row, now),
        },
        empty="there is no such machine"
        if selector
        else "no machine is enrolled yet; make a "
        "token with `stead token new`, and use it on the machine: stead-agent enroll --token -",
    )


@command.command(epilog="Example: stead machine show web-01")
@click.argument("machine")
@tenant_option
@output_option
@click.pass_obj
def show(app: App, machine: str, tenant: str, output: str) -> None:
    """Show one machine."""
    found = machine_meant(app.connection, machine, tenant)
    emit_one(machine_row(found, tenant_names(app.connection)), output)


@command.command(
    epilog="Example: stead machine tag web-01 +web -old",
    # No option of one letter here: it would be found inside -oauth, which takes a tag away.
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("selector")
@click.argument("tags", nargs=-1, required=True, metavar="+TAG|-TAG...")
@tenant_option
@click.option("--yes", is_flag=True, help="Do not ask before changing several machines.")
@click.pass_obj
def tag(app: App, selector: str, tags: tuple[str, ...], tenant: str, yes: bool) -> None:
    """Add tags (+web, or web) and take tags away (-web)."""
    add, remove = parse_tags(tags)
    machines = machines_meant(app.connection, selector, tenant)
    if len(machines) > 1:
        question = f"Change the tags of {len(machines)} machines?"
        ask(question, yes=yes, first=f"look with `stead machine ls '{selector}'`")
    stub = app.connection.machines

    def change(machine: Machine) -> Row:
        request = TagMachineRequest(machine_id=machine.machine_id, add=add, remove=remove)
        return {"machine": machine.name, "tags": list(stub.TagMachine(request).tags)}

    rows = list(abreast(change, machines, most=AT_ONCE))
    emit(rows, "table", columns=("machine", "tags"))


@command.command(epilog="Example: stead machine rename web-01 www-01")
@click.argument("machine")
@click.argument("name")
@tenant_option
@click.pass_obj
def rename(app: App, machine: str, name: str, tenant: str) -> None:
    """Give a machine another name."""
    found = machine_meant(app.connection, machine, tenant)
    request = RenameMachineRequest(machine_id=found.machine_id, name=name)
    app.connection.machines.RenameMachine(request)
    note(f"{found.name} is {name} now.")
    found.name = name
    recognise(app.connection.home, [found])


@command.command("recognise", epilog="Example: stead machine recognise web-01")
@click.argument("selector")
@tenant_option
@output_option
@click.pass_obj
def take_names(app: App, selector: str, tenant: str, output: str) -> None:
    """Take the controller's word for what machines are called.

    A profile remembers which machine a name meant when an order was given for it. Where the
    controller says another one by now, nothing is signed before you have said that it was
    renamed or enrolled anew: when you are asked, or with this command.
    """
    machines = machines_meant(app.connection, selector, tenant)
    changes = recognise(app.connection.home, machines)
    emit(
        [
            {"machine": one.name, "id": one.machine, "was": one.meant, "called": one.called}
            for one in changes
        ],
        output,
        columns=("machine", "id", "was", "called"),
        empty=f"{len(machines)} recognised; none was another one before",
    )


@command.command(epilog="Example: stead machine revoke web-01")
@click.argument("machine")
@tenant_option
@yes_option
@click.pass_obj
def revoke(app: App, machine: str, tenant: str, yes: bool) -> None:
    """End a machine's access at once. Its backups and its history stay."""
    found = machine_meant(app.connection, machine, tenant)
    ask(f"Revoke {found.name} ({found.machine_id})?", yes=yes)
    app.connection.machines.RevokeMachine(RevokeMachineRequest(machine_id=found.machine_id))
    note(f"{found.name} is revoked. To let it in again, enroll it with a new token.")


@command.command(epilog="Example: stead machine retire old-laptop")
@click.argument("machine")
@tenant_option
@yes_option
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@click.pass_obj
def retire(app: App, machine: str, tenant: str, yes: bool, dry_run: bool) -> None:
    """Take a machine out of use for good. Its id is never used again.

    Its access ends at once; its backups, its inventories and its jobs stay. A computer that
    shall be used again is enrolled with a new token and is a new machine.
    """
    found = machine_meant(app.connection, machine, tenant)
    if dry_run:
        note(f"{found.name} ({found.machine_id}), {found.state}, would be retired.")
        return
    ask(f"Retire {found.name} ({found.machine_id})?", yes=yes, first="look with --dry-run")
    app.connection.machines.RetireMachine(RetireMachineRequest(machine_id=found.machine_id))
    note(f"{found.name} is retired.")


@command.command(epilog="Example: stead machine approve web-01")
@click.argument("machine")
@tenant_option
@click.option(
    "--older",
    is_flag=True,
    help="The machine is the computer that showed the older state. Default: the one that "
    "was seen last before the conflict.",
)
@yes_option
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@click.pass_obj
def approve(app: App, machine: str, tenant: str, older: bool, yes: bool, dry_run: bool) -> None:
    """Let a machine go on that is parked, or a clone that waits.

    A machine is parked when two computers say that they are it and nobody can tell which it
    is. Approved, it goes on with one of them; the other becomes a machine of its own, without
    tags and backups, and waits for approval.
    """
    found = machine_meant(app.connection, machine, tenant)
    what = f"{found.name} ({found.machine_id}), {found.state}"
    if found.clone_of:
        what += f", a clone of {found.clone_of}"
    if found.state not in {"parked", "waiting"}:
        raise SteadError(f"{what}: there is nothing to approve", code=Code.PRECONDITION)
    if dry_run:
        note(f"{what}, would be approved.")
        return
    ask(f"Approve {what}?", yes=yes, first="look with --dry-run")
    request = ApproveMachineRequest(machine_id=found.machine_id, older=older)
    app.connection.machines.ApproveMachine(request)
    note(f"{found.name} is approved.")


def parse_tags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What to add and what to take away.

    >>> parse_tags(["+web", "prod", "-old"])
    (['web', 'prod'], ['old'])
    """
    add = [word.removeprefix("+") for word in words if not word.startswith("-")]
    remove = [word[1:] for word in words if word.startswith("-")]
    if not all(add) or not all(remove) or any(word.startswith("-") for word in remove):
        raise InvalidError("a tag is written +web, web or -web; see `stead machine tag --help`")
    if both := set(add) & set(remove):
        raise InvalidError(f"{sorted(both)[0]!r} cannot be added and taken away at once")
    return add, remove


def machine_row(machine: Machine, names: dict[str, str]) -> dict[str, Any]:
    """A machine as a record."""
    return {
        "name": machine.name,
        "tenant": names.get(machine.tenant_id, machine.tenant_id),
        "id": machine.machine_id,
        "hostname": machine.hostname,
        "state": machine.state,
        "linked": machine.linked,
        "last_seen_at": from_wire_ms(machine.last_seen_at_ms),
        "enrolled_at": from_wire_ms(machine.enrolled_at_ms),
        "agent_version": machine.agent_version,
        "system": machine.system,
        "updates": _known(machine.updates),
        "security_updates": _known(machine.security_updates),
        "last_point_at": from_wire_ms(machine.last_point_at_ms),
        "last_drill_at": from_wire_ms(machine.last_drill_at_ms),
        "drill_state": machine.drill_state,
        "clone_of": machine.clone_of,
        "frozen": list(machine.frozen),
        "frozen_at": from_wire_ms(machine.frozen_at_ms),
        "audit_alarm": machine.audit_alarm,
        "tags": list(machine.tags),
        **_ceiling(machine),
    }


def _ceiling(machine: Machine) -> Row:
    """What the machine's own administrator rules out; None where it has not said."""
    said = machine.ceiling if machine.HasField("ceiling") else None
    return {
        "deny": None if said is None else list(said.deny),
        "read_only": None if said is None else said.read_only,
        "policy_version": None if said is None else said.policy_version,
    }


def render_state(row: Row) -> str:
    """What matters of a machine's state: whether it may come, and whether it is there."""
    if row["state"] != "active":
        return str(row["state"])
    return "linked" if row["linked"] else "unlinked"


def render_backup(row: Row, now: datetime) -> str:
    """The age of the newest restore point, and whether the machine is frozen.

    >>> from datetime import UTC
    >>> render_backup({"last_point_at": None, "frozen_at": None}, datetime.now(UTC))
    'never'
    """
    age = render_age(row["last_point_at"], now)
    return age if row["frozen_at"] is None else f"{age}, frozen"


def render_updates(updates: int | None, security: int | None) -> str:
    """Updates on offer, for people.

    >>> render_updates(12, 3), render_updates(None, None)
    ('12 (3 security)', 'not scanned')
    """
    if updates is None:
        return "not scanned"
    return f"{updates} ({security} security)" if security else str(updates)


def _known(count: int) -> int | None:
    return None if count < 0 else count


def _candidate(row: Row) -> Candidate:
    seen: datetime | None = row["last_seen_at"]
    # A listing shows machines that are out as well; only orders are for active ones.
    return Candidate(
        id=row["id"],
        tenant=row["tenant"],
        tenant_name=row["tenant"],
        name=row["name"],
        tags=frozenset(row["tags"]),
        system=row["system"],
        linked=row["linked"],
        last_seen_at=seen,
    )


command.add_command(rehome)
