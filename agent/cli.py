"""The command `stead-agent`: parse, call, print."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError

from agent.config import AgentHome, default_home
from agent.shown import complain, exit_code, show, text_of
from agent.version import VERSION
from protocol.errors import SteadError
from protocol.shown import encode_json

output_option = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Table for people, JSON for scripts.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: stead-agent status"
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of all state; the agent's part is in its `agent` folder. Default: "
    "$STEAD_HOME, or the platform's usual place.",
)
@click.pass_context
def cli(context: click.Context, home: Path | None) -> None:
    """The Stead agent: looks after this machine on behalf of the operators it trusts."""
    context.obj = AgentHome((home or default_home()).absolute() / "agent")


@cli.command(epilog="Example: stead-agent enroll --token - < token")
@click.option("--token", required=True, help="The token, or - to read it from standard input.")
@click.option("--force", is_flag=True, help="Make an enrolled machine a new one, with a new key.")
@click.option(
    "--proxy",
    metavar="URL",
    help="HTTP proxy on the way to the controller, http://[user:password@]host:port, or none; "
    "- reads it from standard input, after the token. Kept in agent.toml. Default: what is set "
    "there, else https_proxy of the environment.",
)
@click.pass_obj
def enroll(home: AgentHome, token: str, proxy: str | None, *, force: bool) -> None:
    """Turn a token from `stead token new` into this machine's identity.

    A token or a password on the command line is seen by every user of the machine: prefer `-`.
    """
    from agent.host import clock
    from agent.host.files import make_private_directory
    from agent.host.lock import locked
    from agent.link.enroll import enroll as enroll_machine
    from agent.link.identity import load_identity
    from agent.tasks.journal import new_journal

    text = _next_line() if token == "-" else token  # noqa: S105
    if proxy == "-":
        proxy = _next_line().strip()
    make_private_directory(home.path)
    with locked(home.lock):
        enroll_machine(
            text,
            home,
            version=VERSION,
            now=clock.now(),
            journal=new_journal(),
            force=force,
            proxy=proxy,
        )
    identity = load_identity(home).identity
    click.echo(f"enrolled as {identity.machine} of tenant {identity.tenant}")


@cli.command(epilog="Example: stead-agent run")
@click.pass_obj
def run(home: AgentHome) -> None:
    """Be the agent, until SIGTERM or Ctrl-C. Usually the service manager starts this."""
    from agent.app import run_agent

    run_agent(home)


@cli.group(epilog="Example: stead-agent service install")
def service() -> None:
    """The agent as a service of Windows or macOS. On Linux the package brings it."""


@service.command("install", epilog="Example: stead-agent service install")
@click.pass_obj
def service_install(home: AgentHome) -> None:
    """Start the agent now, at each start of the machine, and again whenever it ends.

    The machine has to be enrolled. Run this as administrator or root.
    """
    from agent.service.install import own_service, program

    own = own_service(home)
    home.load_settings()
    own.install(program(home, "service", "run"))
    click.echo("installed and started; its log is " + str(home.log))


@service.command("uninstall", epilog="Example: stead-agent service uninstall")
@click.pass_obj
def service_uninstall(home: AgentHome) -> None:
    """Stop the agent and start it no more. Its identity and its state stay."""
    from agent.service.install import own_service

    own_service(home).uninstall()
    click.echo(f"removed; what the agent knows is still in {home.path}")


@service.command("run", hidden=True)
@click.pass_obj
def service_run(home: AgentHome) -> None:
    """Be the agent, started by the service manager of Windows or macOS."""
    from agent.service.run import run_service

    run_service(home)


@cli.command(epilog="Example: stead-agent generalize --token - < token")
@click.option(
    "--token", default="", help="With it each copy enrolls itself; - reads it from standard input."
)
@click.option("--dry-run", is_flag=True, help="List what would go and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def generalize(home: AgentHome, token: str, *, dry_run: bool, yes: bool) -> None:
    """Make this machine's disk fit to be copied: its identity and its state go.

    Key, certificates, secrets, journal, backup set and caches are removed; what is set in
    agent.toml stays. The agent must be stopped. A copy is enrolled like any new machine, or
    enrolls itself with a token that is good for as many uses as there will be copies.
    """
    from agent.host.lock import locked
    from agent.link.generalize import apply_generalizing, plan_generalizing

    plan = plan_generalizing(home)
    if dry_run:
        for path in plan.goes:
            click.echo(f"goes   {path}")
        for path in plan.stays:
            click.echo(f"stays  {path}")
        return
    piped = token == "-"  # noqa: S105
    text = _next_line().strip() if piped else token
    if not yes and not piped:
        click.confirm(f"Make {home.path} no machine any more?", abort=True, err=True)
    with locked(home.lock):
        apply_generalizing(home, plan_generalizing(home), text)
    click.echo(f"{home.path} is nobody's now; stop here and copy the disk")


@cli.group(epilog="Example: stead-agent identity ls")
def identity() -> None:
    """Identities that this machine had before its controller called it a copy."""


@identity.command("ls", epilog="Example: stead-agent identity ls --output json")
@output_option
@click.pass_obj
def identity_ls(home: AgentHome, output: str) -> None:
    """List what this machine was, newest first; it can be that again."""
    from agent.link.former import former_identities

    found = [{"machine": one.machine, "until": one.since} for one in former_identities(home)]
    if output == "json":
        click.echo(encode_json(found).decode())
        return
    for one in found:
        click.echo(f"{one['machine']}  until {text_of(one['until'])}")


@identity.command("back", epilog="Example: stead-agent identity back mc_01k…")
@click.argument("machine")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def identity_back(home: AgentHome, machine: str, *, yes: bool) -> None:
    """Be a former MACHINE again, with its key, its backup set and its standing orders.

    For a machine that was called a copy and is none. The agent must be stopped. What the
    machine is now is kept in its turn.
    """
    from agent.host.lock import locked
    from agent.link.former import take_back
    from agent.link.identity import load_identity

    if not yes:
        click.confirm(f"Be {machine} again?", abort=True, err=True)
    with locked(home.lock):
        take_back(home, machine, load_identity(home).identity.machine)
    click.echo(f"this machine is {load_identity(home).identity.machine} again")


@identity.command("forget", epilog="Example: stead-agent identity forget mc_01k…")
@click.argument("machine")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def identity_forget(home: AgentHome, machine: str, *, yes: bool) -> None:
    """Remove what is kept of a former MACHINE, its keys included, for good."""
    from agent.host.lock import locked
    from agent.link.former import forget_former

    if not yes:
        click.confirm(f"Forget {machine} and its keys?", abort=True, err=True)
    with locked(home.lock):
        forget_former(home, machine)
    click.echo(f"{machine} is forgotten")


@cli.command(epilog="Example: stead-agent status --output json")
@output_option
@click.pass_obj
def status(home: AgentHome, output: str) -> None:
    """Show who this machine is, and how its link is.

    Exit code 0 when the link is up, 6 when it is not, 1 when no agent runs.
    """
    from agent.diagnosis.status import describe

    told = describe(home)
    show(told.fields, output)
    raise SystemExit(told.exit_code)


@cli.command(epilog="Example: stead-agent doctor")
@output_option
@click.pass_obj
def doctor(home: AgentHome, output: str) -> None:
    """Look for what keeps this machine from working.

    Exit code 0 when every check passed, 1 when one did not.
    """
    from agent.diagnosis.doctor import examine

    findings = examine(home)
    if output == "json":
        click.echo(encode_json(findings).decode())
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.good else 'FAIL'}  {finding.check:<12}  {finding.said}")
            if finding.next_step:
                click.echo(f"{'':6}{'':14}-> {finding.next_step}")
    raise SystemExit(0 if all(finding.good for finding in findings) else 1)


@cli.group(epilog="Example: stead-agent backup ls")
def backup() -> None:
    """Restore points that this machine's own administrator asks for."""


@backup.command("run", epilog="Example: stead-agent backup run")
@output_option
@click.pass_obj
def backup_run(home: AgentHome, output: str) -> None:
    """Make a restore point of the backup set now.

    Exit code 3 when files had to be skipped.
    """
    from agent.diagnosis.own_backup import render_progress, run_backup
    from protocol.outcome import OutcomeState

    def told(piece: str) -> None:
        click.echo(piece if output == "json" else render_progress(piece), err=True)

    outcome = run_backup(home, on_progress=told)
    click.echo(outcome.result.decode() if output == "json" else outcome.message)
    raise SystemExit(0 if outcome.state is OutcomeState.SUCCEEDED else 3)


@backup.command("ls", epilog="Example: stead-agent backup ls --output json")
@output_option
@click.pass_obj
def backup_ls(home: AgentHome, output: str) -> None:
    """List this machine's restore points, newest first."""
    from agent.diagnosis.own_backup import list_points

    points = list_points(home)
    if output == "json":
        click.echo(encode_json(points).decode())
        return
    for point in points:
        click.echo(f"{point['received_at']:%Y-%m-%d %H:%M:%S}Z  {point['point']}")


@backup.command("pause", epilog="Example: stead-agent backup pause")
@click.pass_obj
def backup_pause(home: AgentHome) -> None:
    """Let the running backup or restore wait, and those that begin, until `resume`.

    Nothing is read, sent or written meanwhile.
    """
    from agent.backup.send.control import administrator, pause

    home.load_settings()
    runs = pause(home, administrator())
    click.echo("paused" if runs else "no backup or restore runs; those that begin will wait")


@backup.command("resume", epilog="Example: stead-agent backup resume")
@click.pass_obj
def backup_resume(home: AgentHome) -> None:
    """Let backups and restores go on where they were paused."""
    from agent.backup.send.control import resume

    home.load_settings()
    click.echo("resumed" if resume(home) else "backups were not paused")


@backup.command("cancel", epilog="Example: stead-agent backup cancel")
@click.pass_obj
def backup_cancel(home: AgentHome) -> None:
    """End the running backup or restore, and wait for its end.

    What it has sent stays: the next one sends only the rest. A backup whose commit has
    begun ends as a restore point. What a restore has written stays, too.
    """
    from agent.backup.send.control import administrator, cancel

    home.load_settings()
    cancel(home, administrator())
    click.echo("it has ended")


@cli.command(epilog="Example: stead-agent version")
def version() -> None:
    """Print the version."""
    click.echo(VERSION)


@cli.command(hidden=True)
def work() -> None:
    """Execute one action for the agent; see `agent.tasks.worker`."""
    from agent.tasks.worker import work as do_work

    do_work()
    # All is told and closed: to take the interpreter apart takes as long as a small backup.
    sys.stdout.flush()
    os._exit(0)


def _next_line() -> str:
    """A line of standard input, which may hold anything, and may not be there at all."""
    if sys.stdin is None:
        return ""
    return sys.stdin.buffer.readline().decode(errors="replace")


def main() -> None:
    """Run the command; an expected failure is one line, or an object, and an exit code."""
    # gRPC reads these when it is imported. What it would print of a failed handshake, an
    # error says better, and it has no business around the fork of a child.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
        raise SystemExit(2) from None
    except SteadError as error:
        raise SystemExit(complain(str(error), exit_code(error), error.code)) from None
    except click.UsageError as error:
        path = "stead-agent" if error.ctx is None else error.ctx.command_path
        said = f"{error.format_message().rstrip('.')}; see `{path} --help`"
        raise SystemExit(complain(said, 2, "usage")) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(complain("interrupted", 130, "interrupted")) from None
    except BrokenPipeError:
        # Nobody reads on: Python's last flush goes nowhere instead of failing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        said = f"{place}{error.strerror or error}"
        raise SystemExit(complain(said, 1, "system")) from None


if __name__ == "__main__":
    main()
