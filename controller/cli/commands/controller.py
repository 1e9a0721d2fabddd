"""`stead controller`: make an installation, run it, see how it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from controller import clock
from controller.authority.authority import ENDS_SOON
from controller.cli.app import App
from controller.cli.commands.authority import authorities, distrust_authority
from controller.cli.commands.operator_key import root_option
from controller.cli.options.usual import yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit_one, from_wire_ms, note, output_option
from controller.config import ENROLLMENT_PORT, LINK_PORT

if TYPE_CHECKING:
    from protocol.v1.operator_pb2 import UnsignedLog


@click.group(epilog="Example: stead controller status")
def command() -> None:
    """Make and run the controller."""


for added in (authorities, distrust_authority):
    command.add_command(added)


@command.command(epilog="Example: stead controller init --name stead.example.org --name 10.0.0.5")
@click.option(
    "--name",
    "names",
    metavar="HOST",
    multiple=True,
    default=("127.0.0.1",),
    show_default=True,
    help="DNS name or address by which machines reach it; the first is what they are told.",
)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    default=f"0.0.0.0:{LINK_PORT}",
    show_default=True,
    help="Where enrolled machines and operators connect.",
)
@click.option(
    "--enroll-listen",
    metavar="ADDR:PORT",
    default=f"0.0.0.0:{ENROLLMENT_PORT}",
    show_default=True,
    help="Where machines enroll.",
)
@click.option("--admin", default="admin", show_default=True, help="The first operator's name.")
@click.option(
    "--passphrase",
    "protected",
    is_flag=True,
    help="Ask for passphrases that protect the root's key and the first operator's.",
)
@click.pass_obj
def init(
    app: App,
    names: tuple[str, ...],
    listen: str,
    enroll_listen: str,
    admin: str,
    *,
    protected: bool,
) -> None:
    """Make an installation: root key, certificates, database, first administrator."""
    from controller.authority.init import initialise
    from controller.cli.operator.passphrase import Whose, kept_as

    made = initialise(
        app.home,
        names=names,
        now=clock.now(),
        listen=listen,
        enroll_listen=enroll_listen,
        admin=admin,
        root_file=kept_as(Whose.ROOT, protected=protected),
        admin_file=kept_as(Whose.OPERATOR, protected=protected),
    )
    emit_one(
        {
            "controller": str(made.controller.path),
            "operator": str(made.operator.path),
            "root key": str(made.root.key),
            "root": made.pin.hex(),
        },
        "table",
    )
    note(
        "\nThe root key makes operators and, every two years, an issuing authority; it is needed "
        f"for nothing else. Move {made.root.path} to a safe place, off this machine: whoever has "
        "it can order anything.\n\n"
        "Next:\n"
        "  stead controller serve\n"
        "  stead tenant add NAME\n"
        "  stead token new --tenant NAME"
    )


@command.command(epilog="Example: stead controller serve --listen 0.0.0.0:7443")
@click.option("--listen", metavar="ADDR:PORT", help="Link port. Default: as in config.toml.")
@click.option(
    "--enroll-listen", metavar="ADDR:PORT", help="Enrollment port. Default: as in config.toml."
)
@click.option("--database", metavar="URL", help="Default: stead.db beside config.toml.")
@click.option("--objects", metavar="DIRECTORY", help="Default: objects beside config.toml.")
@click.pass_obj
def serve(
    app: App,
    listen: str | None,
    enroll_listen: str | None,
    database: str | None,
    objects: str | None,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
    import asyncio

    from controller.cli.serving import serve_until_signalled, settings_with

    settings = settings_with(
        app.controller.load_settings(),
        listen=listen,
        enroll_listen=enroll_listen,
        database=database,
        objects=objects,
    )
    asyncio.run(serve_until_signalled(app.home, settings))


@command.command(epilog="Example: stead controller status --output json")
@output_option
@click.pass_obj
def status(app: App, output: str) -> None:
    """Ask the controller how it is."""
    from protocol.v1.operator_pb2 import StatusRequest

    connection = app.connection
    found = connection.controllers.Status(StatusRequest())
    theirs = from_wire_ms(found.controller_time_ms)
    ends_at = from_wire_ms(found.authority_ends_at_ms)
    emit_one(
        {
            "address": connection.address,
            "version": found.version,
            "started_at": from_wire_ms(found.started_at_ms),
            "controller_time_at": theirs,
            "clock_difference_s": None
            if theirs is None
            else round((theirs - clock.now()).total_seconds(), 1) + 0.0,  # no -0.0
            "machines": found.machines,
            "linked_machines": found.linked_machines,
            "open_jobs": found.open_jobs,
            "free_bytes": found.free_bytes,
            "authority_until": ends_at,
            "audit_unsigned": [_unsigned(one) for one in found.unsigned_logs],
            "audit_alarms": found.machines_with_audit_alarms,
            "operator": connection.operator.name,
            "role": connection.operator.role.value,
        },
        output,
    )
    if found.unsigned_logs:
        note(
            "An audit log that is not signed can be changed by whoever has the database, and "
            "nobody notices. The controller's log says why it is not; `stead audit verify` names "
            "the entry that does not fit."
        )
    if ends_at is not None and clock.now() >= ends_at - ENDS_SOON:
        note(
            f"The issuing authority ends on {ends_at:%Y-%m-%d}; then no machine connects any "
            "more. Run `stead controller rotate-authority`."
        )


def _unsigned(one: UnsignedLog) -> str:
    """An audit log that is not signed as it should be, in words."""
    if one.entries < one.signed:
        said = f"{one.log}: it has {one.entries} entries, and {one.signed} were signed"
    else:
        since = from_wire_ms(one.since_ms)
        at = "" if since is None else f", the first of {since:%Y-%m-%d %H:%M:%S}Z"
        said = f"{one.log}: {one.entries - one.signed} of {one.entries} entries are not signed{at}"
    return f"{said}; {one.reason}" if one.reason else said


@command.command(
    "rotate-authority", epilog="Example: stead controller rotate-authority --root /media/safe/root"
)
@root_option
@click.option(
    "--here",
    is_flag=True,
    help="Change the files of the controller in this home, which must not run. For one whose "
    "authority has ended.",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@yes_option
@click.pass_obj
def rotate_authority(app: App, root: Path | None, *, here: bool, dry_run: bool, yes: bool) -> None:
    """Have the root sign a new issuing authority, good for two years.

    The controller makes the key and goes on running; the root's key stays where this command
    runs. Machines that the former authority certified are believed as before, also those that
    are away for long, and get certificates of the new one as they renew.
    """
    from controller.cli.operator.making import issuer_of, root_of
    from controller.cli.operator.renewal import load_root
    from controller.cli.operator.rotating import rotate_here, rotate_running

    now = clock.now()
    where = str(app.controller.path) if here else app.connection.address
    kept = root_of(app, root)
    issuer = load_root(kept, now) if here else issuer_of(app, root)
    if dry_run:
        note(f"The controller at {where} would get a new issuing authority.")
        return
    ask(f"Give the controller at {where} a new authority?", yes=yes, first="look with --dry-run")
    if here:
        made = rotate_here(app.controller, issuer, kept, now)
    else:
        made = rotate_running(app.connection, issuer, kept, now)
    note(f"The new authority is good until {made.not_valid_after_utc:%Y-%m-%d}.")


@command.command("upgrade-db", epilog="Example: stead controller upgrade-db")
@click.option("--database", metavar="URL", help="Default: as in config.toml.")
@click.pass_obj
def upgrade_db(app: App, database: str | None) -> None:
    """Bring the database to this release's schema; the controller must be stopped."""
    from controller.db.database import Database
    from controller.db.schema import SCHEMA_VERSION

    url = database or app.controller.database_url(app.controller.load_settings())
    Database.open(url, migrate=True).close_now()
    note(f"The database has schema {SCHEMA_VERSION}.")
