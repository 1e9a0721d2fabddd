"""`stead file`: put a file on machines, and get files from them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.files.begun import Begun, Get, take_up
from controller.cli.files.getting import bring, read_long_ago
from controller.cli.files.parcels import Parcel, content_of, sealed_to_all
from controller.cli.files.places import check_free, local_places, remote_path
from controller.cli.operator.choice import machines_meant
from controller.cli.operator.ruling import check_ordering
from controller.cli.operator.tenant_keys import all_keys
from controller.cli.options.choosing import Size
from controller.cli.options.terms import Terms, acting_within, terms_of
from controller.cli.orders.following import follow, job_now
from controller.cli.orders.ordering import confirm, order_and_follow, submit
from controller.cli.orders.outcomes import exit_code, finish, say_failures, say_remarks
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.exits import DONE, FAILED, IN_PART, OVER
from controller.cli.output.meter import meter
from protocol.action import GetFile, PutFile
from protocol.errors import Code, DeniedError, InvalidError
from protocol.identity import OperatorIdentity
from protocol.ids import ParcelId, TenantId
from protocol.order import MAY_ACT
from protocol.parcel import key_of_content, parcel_of_key
from protocol.summary import summary_of
from protocol.v1.job_pb2 import Job
from protocol.v1.operator_pb2 import Machine
from protocol.vault.keys import KEY_BYTES

LARGEST = 1024 * 1024 * 1024
"""Of a file, unless --max-size says otherwise."""

LATER = timedelta(hours=1)
"""A parcel is kept so much longer than its order may take."""

_TIME = "%Y-%m-%d %H:%M:%S"
GOT = ("machine", "state", "bytes", "file", "message")


@click.group(epilog="Example: stead file put tag:web nginx.conf /etc/nginx/nginx.conf")
def command() -> None:
    """Files: put them on machines, get them from there.

    The content is sealed between you and the machine: the controller can neither read nor
    change it. It needs the tenant's recovery key in your profile, as restores do.
    """


@command.command(epilog="Example: stead file put tag:web motd /etc/motd --mode 0644 --owner root")
@click.argument("selector")
@click.argument("local", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("remote")
@click.option("--owner", metavar="USER", default="", help="A name or a number.")
@click.option("--group", metavar="GROUP", default="", help="A name or a number.")
@click.option("--mode", metavar="OCTAL", default="", help="As 0644.")
@click.option("--make-directories", is_flag=True, help="Make the directories that are missing.")
@click.option("--no-overwrite", is_flag=True, help="Leave a file that has other content.")
@click.option("--verify", is_flag=True, help="Read back from the disk what was written.")
@click.option(
    "--limit-rate",
    type=Size(at_least=16 * 1024),
    metavar="SIZE",
    help="Each machine fetches at most so much a second, as 10M.",
)
@click.option(
    "--max-size", type=Size(), metavar="SIZE", help="Refuse a larger file.  [default: 1G]"
)
@acting_within("1h")
@output_option
@click.pass_obj
def put(
    app: App,
    /,
    selector: str,
    local: Path,
    remote: str,
    mode: str,
    limit_rate: int | None,
    max_size: int | None,
    output: str,
    **options: Any,
) -> int:
    """Put the file LOCAL at the path REMOTE of machines.

    A machine writes it under another name, checks it against the hash that you signed, and
    only then puts it in place. Owner, group and mode that are not named stay those of the file
    that is replaced; a new file has mode 0644. A run that was cut off goes on where it was.
    """
    terms = terms_of(options)
    check_role(app.connection.operator)
    path = remote_path(remote)
    # Words that no order can say are to be told before anything is sent.
    (options["owner"] + options["group"] + terms.reason).encode()
    machines = machines_meant(app.connection, selector, terms.tenant)
    tenant = TenantId(machines[0].tenant_id)
    keys = all_keys(app.connection, tenant)
    if not local.is_file():
        raise InvalidError(
            f"{local} is no regular file; it is read twice, so write it to one first"
        )
    with meter("read", local.stat().st_size) as told:
        content = content_of(local, told)
    if content.size > (most := max_size or LARGEST):
        raise InvalidError(
            f"{local} has {render_bytes(content.size)}, more than {render_bytes(most)}; raise "
            "--max-size"
        )
    key = key_of_content(keys.newest.secret, content.size, content.hash)
    parcel = Parcel(app.connection, tenant, parcel_of_key(key))
    action = PutFile(
        path=path,
        parcel_id=parcel.id,
        sealed_keys=sealed_to_all(
            machines,
            keys,
            {machine.machine_id: key for machine in machines},
            tenant=tenant,
            parcel=parcel.id,
        ),
        size=content.size,
        content_hash=content.hash,
        mode=parse_mode(mode),
        owner=options["owner"],
        group=options["group"],
        make_directories=options["make_directories"],
        no_overwrite=options["no_overwrite"],
        verify=options["verify"],
        limit_rate=limit_rate or 0,
    )
    check_ordering(app.connection, tenant, action, propose=terms.propose)
    if not terms.dry_run:
        confirm(machines, summary_of(action), terms)
        parcel.open(
            [machine.machine_id for machine in machines],
            max_size=content.size,
            keep=terms.deliver_by + terms.timeout + LATER,
            from_machines=False,
        )
        with local.open("rb") as file, meter("send", content.size) as told:
            parcel.send(file, content, key, told)
    job = order_and_follow(
        app.connection, machines, action, replace(terms, yes=True), output=output, repeatable=True
    )
    return finish(job, output)


@command.command(epilog="Example: stead file get tag:web /var/log/nginx/error.log logs/")
@click.argument("selector")
@click.argument("remote")
@click.argument("local", required=False, default="")
@click.option(
    "--max-size", type=Size(), metavar="SIZE", help="Refuse a larger file.  [default: 1G]"
)
@click.option("--overwrite", is_flag=True, help="Replace a local file.")
@click.option(
    "--go-on/--anew",
    default=None,
    help="Go on with what an earlier run began, or not.  [default: what was read within 1h]",
)
@click.option(
    "--limit-rate",
    type=Size(at_least=16 * 1024),
    metavar="SIZE",
    help="Each machine sends at most so much a second, as 10M.",
)
@acting_within("1h")
@output_option
@click.pass_obj
def get(
    app: App,
    /,
    selector: str,
    remote: str,
    local: str,
    max_size: int | None,
    overwrite: bool,
    go_on: bool | None,
    limit_rate: int | None,
    output: str,
    **options: Any,
) -> int:
    """Get the file at the path REMOTE of machines.

    Of one machine it is written to LOCAL, or to a file of its own name; - is standard output.
    Of several it is written below the directory LOCAL, as MACHINE/NAME. Nobody but you can
    read what was written: mode 0600. A run that was cut off goes on where it was.
    """
    terms = terms_of(options)
    if not terms.wait:
        raise InvalidError(
            "the machines seal the file for this very run alone; leave out --no-wait, and say "
            "with --deliver-by how long to wait for them"
        )
    check_role(app.connection.operator)
    path = remote_path(remote)
    machines = machines_meant(app.connection, selector, terms.tenant)
    places = local_places(machines, path, local)
    now = clock.now()
    wanted = Begun(
        tenant=machines[0].tenant_id,
        parcel=clock.new_id("pc"),
        path=path,
        max_bytes=max_size or LARGEST,
        keys={machine.machine_id: secrets.token_bytes(KEY_BYTES) for machine in machines},
        places={
            machine: os.fsencode(place.absolute())
            for machine, place in places.items()
            if place is not None
        },
        begun_at=now,
        ends_at=now + terms.deliver_by + terms.timeout + LATER,
    )
    found = None if go_on is False or terms.dry_run else _left(app, wanted, go_on=go_on)
    with ExitStack() as stack:
        if found is not None:
            stack.callback(found[0].close)
        if not overwrite:
            got = found[0].got if found is not None else set()
            check_free(place for machine, place in places.items() if machine not in got)
        if found is None:
            action = _action_of(app, wanted, machines, limit_rate or 0)
            check_ordering(app.connection, TenantId(wanted.tenant), action, propose=terms.propose)
            if terms.dry_run:
                order_and_follow(app.connection, machines, action, terms, output=output)
                return DONE
            confirm(machines, summary_of(action), terms)
            mine = Get.begin(app.operator.gets, wanted)
            stack.callback(mine.close)
            found = mine, _ordered(app, mine, machines, action, terms)
        return _got(app, *found, places, output, overwrite=overwrite)


def _left(app: App, wanted: Begun, *, go_on: bool | None) -> tuple[Get, Job] | None:
    """What an earlier run left of the same get, unless the machines have nothing to bring."""
    get = take_up(app.operator.gets, wanted, lambda begun: _parcel_of(app, begun).drop())
    if get is None:
        return None
    try:
        job = job_now(app.connection, get.job)
    except grpc.RpcError as error:
        if app.connection.explain(error).code is not Code.NOT_FOUND:
            get.close()
            raise
        job = Job()
    if all(task.state in OVER - {"succeeded"} for task in job.tasks):
        get.over()
        get.close()
        return None
    if go_on is None and (read := read_long_ago(job, wanted.begun_at)) is not None:
        note(f"What was read at {read.astimezone():{_TIME}} is read anew; --go-on takes that.")
        get.close()
        return None
    get.settle()
    begun = get.begun.begun_at.astimezone()
    note(f"Going on with what was begun at {begun:{_TIME}}; --anew has it read anew.")
    return get, job


def _action_of(app: App, wanted: Begun, machines: Sequence[Machine], limit_rate: int) -> GetFile:
    tenant = TenantId(wanted.tenant)
    parcel = ParcelId(wanted.parcel)
    tenant_keys = all_keys(app.connection, tenant)
    return GetFile(
        path=wanted.path,
        parcel_id=parcel,
        sealed_keys=sealed_to_all(machines, tenant_keys, wanted.keys, tenant=tenant, parcel=parcel),
        max_bytes=wanted.max_bytes,
        limit_rate=limit_rate,
    )


def _ordered(app: App, get: Get, machines: Sequence[Machine], action: GetFile, terms: Terms) -> Job:
    _parcel_of(app, get.begun).open(
        list(get.begun.keys),
        max_size=action.max_bytes,
        keep=get.begun.ends_at - get.begun.begun_at,
        from_machines=True,
    )
    # Only who has the keys can fetch: where another operator has to sign, wait for that.
    terms = replace(terms, yes=True, wait_for_approval=True)
    job = submit(app.connection, machines, action, terms, repeatable=True)
    get.ordered(job.job_id)
    return job


def _got(
    app: App,
    get: Get,
    job: Job,
    places: dict[str, Path | None],
    output: str,
    *,
    overwrite: bool,
) -> int:
    """Wait for the machines, fetch what they sent, and say what became of each."""
    parcel = _parcel_of(app, get.begun)
    to_stdout = None in places.values()
    goes_on = not to_stdout
    try:
        job = follow(app.connection, job, live=False)
        brought = bring(job, get, parcel, places, overwrite=overwrite)
        goes_on &= brought.worth_going_on or any(task.state not in OVER for task in job.tasks)
    finally:
        if goes_on:
            note("The same command goes on from here; beyond an hour from now with --go-on.")
        else:
            get.over()
            parcel.drop()
    say_failures(job)
    if to_stdout:
        say_remarks(job)
    else:
        emit(brought.rows, output, columns=GOT)
    if brought.lost:
        return FAILED if brought.lost == len(job.tasks) else IN_PART
    return exit_code(job)


def _parcel_of(app: App, begun: Begun) -> Parcel:
    return Parcel(app.connection, TenantId(begun.tenant), ParcelId(begun.parcel))


def parse_mode(text: str) -> int:
    """Permissions from octal digits; 0 for none.

    >>> parse_mode("0640") == 0o640, parse_mode("")
    (True, 0)
    """
    if not text:
        return 0
    try:
        mode = int(text, 8)
    except ValueError:
        mode = 0
    if not 0 < mode <= 0o7777:
        raise InvalidError(f"{text[:20]!r} is not a mode; write it as 0644")
    return mode


def check_role(operator: OperatorIdentity) -> None:
    """Raise DENIED for whose role hands in no files, a proposal included.

    What is sealed takes the tenant's recovery key, which opens every backup, and what is got
    goes to whoever asked, not to whoever approved it.
    """
    if operator.role not in MAY_ACT:
        raise DeniedError(
            f"{operator.name} is {operator.role}, and files are put and got by technicians and "
            "admins alone; `stead script --propose` carries up to 960 KiB"
        )
