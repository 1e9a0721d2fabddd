"""The program `stead`: finds the command, and turns what went wrong into a line and a code."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click
from click.exceptions import Exit, NoArgsIsHelpError

from controller.cli.app import App
from controller.cli.output import exits
from controller.cli.output.complaint import (
    INTERRUPTED,
    NOTHING_DONE,
    SYSTEM,
    USAGE,
    Complaint,
    wants_json,
)
from controller.cli.output.exits import DONE, FAILED, WRONG_USE, exit_code_of
from controller.config import default_home
from protocol.errors import SteadError

COMMANDS: Mapping[str, str] = {
    "controller": "Make and run the controller.",
    "tenant": "Tenants and their keys.",
    "operator": "People who may give orders.",
    "token": "Tokens that let machines in.",
    "machine": "Machines: list, name, tag, revoke.",
    "inventory": "What is in the machines, and what changed.",
    "snapshot": "The help desk's picture of a machine.",
    "run": "Run a program on machines.",
    "script": "Run a script of yours on machines.",
    "file": "Files: put them on machines, get them from there.",
    "service": "Services: list, start, stop.",
    "process": "Processes: list, end.",
    "power": "Restart machines, or switch them off.",
    "logs": "A machine's logs, as they are and as they grow.",
    "job": "Orders on their way.",
    "order": "Standing orders: what machines do again and again.",
    "policy": "Who may order what in a tenant, and when it takes two.",
    "patch": "Updates: scan, plan, apply.",
    "backup": "Backups: make, browse, restore.",
    "vault": "Check, scrub and rebuild the vault; how much is in it.",
    "audit": "Read and verify the audit log.",
}
"""The commands in the order of `--help`; each has a module of its name in `commands`."""


class Program(click.RichGroup):
    """Imports a command's module when that command is called, so that help is quick."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for name, about in COMMANDS.items():
            self.add_command(click.RichCommand(name=name, help=about))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was called, imported."""
        name, listed, rest = super().resolve_command(ctx, args)
        if listed is None or listed.name is None:
            return name, listed, rest
        module = importlib.import_module(f"controller.cli.commands.{listed.name}")
        command: click.Command = module.command
        return name, command, rest


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if value and not ctx.resilient_parsing:
        from controller.version import VERSION

        click.echo(f"stead {VERSION}")
        ctx.exit()


@click.command(
    cls=Program,
    epilog="Example: stead machine ls",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of all state. Default: $STEAD_HOME, or the platform's usual place.",
)
@click.option(
    "--controller",
    "address",
    metavar="HOST:PORT",
    default="",
    help="Where the controller is. Default: what the operator's profile says.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Print the version.",
)
@click.pass_context
def program(ctx: click.Context, home: Path | None, address: str) -> None:
    """Look after computers: inventory, updates, backups, remote actions.

    SELECTOR is a machine's name, `all`, or an expression such as
    `tag:web and os:debian and not stale>7d`.
    """
    ctx.obj = App((home or default_home()).expanduser(), address)


_NOT_TEXT = "surrogates not allowed"
"""What Python says of a word that was typed as other bytes."""


def main() -> NoReturn:
    """Run the program and exit."""
    # gRPC's own words about connections would stand between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    code = run(sys.argv[1:])
    # Looking for garbage in what ends anyway takes a tenth of a short command's time.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the program; the exit code."""
    program._main_shell_completion({}, "stead")  # noqa: SLF001 - what click's own main does first
    complain = Complaint(wants_json(arguments)).say
    root: click.Context | None = None
    try:
        root = program.make_context("stead", list(arguments))
        with root:
            code = program.invoke(root)
            sys.stdout.flush()
            return code if isinstance(code, int) else DONE
    except Exit as done:
        return done.exit_code
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return WRONG_USE
    except click.ClickException as error:
        return complain(_usage(error), WRONG_USE, USAGE)
    except click.Abort:
        return complain("nothing was done", WRONG_USE, NOTHING_DONE)
    except KeyboardInterrupt:
        return complain("interrupted", exits.INTERRUPTED, INTERRUPTED)
    except SteadError as error:
        return complain(str(error), exit_code_of(error), error.code)
    except BrokenPipeError:
        return _hush()
    except OSError as error:
        return complain(_about(error), FAILED, SYSTEM)
    except UnicodeEncodeError as error:
        if error.reason != _NOT_TEXT:
            raise
        word = os.fsencode(error.object).decode(errors="backslashreplace")[:200]
        said = f"'{word}' is not UTF-8, and can be no part of an order or a name"
        return complain(said, WRONG_USE, USAGE)
    except Exception as error:
        explained = _explained(error, root)
        if explained is None:
            raise
        return complain(str(explained), exit_code_of(explained), explained.code)


def _explained(error: Exception, root: click.Context | None) -> SteadError | None:
    """What a failed call means; None for an error of another kind."""
    # Who has not imported gRPC has made no call.
    grpc = sys.modules.get("grpc")
    if grpc is None or root is None or not isinstance(error, grpc.RpcError):
        return None
    app: App = root.obj
    return app.connection.explain(error)


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "stead"
    said = error.format_message().rstrip(".")
    return f"{said}{'' if said.endswith('?') else ';'} see `{path} --help`"


def _about(error: OSError) -> str:
    """What the system refused, and of which file."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def _hush() -> int:
    """Nobody reads on: let Python's last flush go nowhere instead of failing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return FAILED
