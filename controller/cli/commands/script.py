"""`stead script`: run a script on machines and see what it prints."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.commands.run import LARGEST_INPUT, order_live, parse_environment, read_input
from controller.cli.operator.choice import machines_meant
from controller.cli.options.confining import confined, limits_of, surrounded
from controller.cli.options.repeating import repeating
from controller.cli.options.terms import acting, terms_of
from controller.cli.output.emit import output_option
from protocol.action import RunScript
from protocol.errors import InvalidError
from protocol.script import SHELLS, line_of, wanted_by

SUFFIXES = {".sh": "sh", ".bash": "bash", ".py": "python", ".ps1": "powershell"}
STANDARD_INPUT = "<stdin>"
"""What Python calls it."""


@click.command(epilog="Example: stead script tag:web fix-permissions.sh /srv -- --recursive")
@click.argument("selector")
@click.argument("file", type=click.File("rb"))
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]... [-- ARGUMENT...]")
@click.option("--shell", type=click.Choice(SHELLS), help="Default: by its #! line, or its suffix.")
@click.option("--stdin", "stdin", type=click.File("rb"), help="A file for the script to read.")
@surrounded
@confined
@acting
@repeating
@output_option
@click.pass_obj
def command(
    app: App,
    /,
    selector: str,
    file: Any,
    arguments: tuple[str, ...],
    shell: str | None,
    stdin: Any,
    environment: tuple[str, ...],
    directory: str,
    output: str,
    **options: Any,
) -> int:
    """Run a script of yours on machines. FILE may be -, for standard input.

    The script travels inside the signed order. Its arguments reach it as they are: no shell
    reads them. Those that begin with a dash come after --.
    """
    name = PurePath(str(getattr(file, "name", STANDARD_INPUT))).name
    body = file.read(LARGEST_INPUT + 1)
    given = read_input(stdin)
    if len(body) + len(given) > LARGEST_INPUT:
        raise InvalidError(
            f"an order carries a script and its standard input of at most {LARGEST_INPUT} bytes"
        )
    if not body.strip():
        raise InvalidError("the script is empty")
    action = RunScript(
        shell=shell or shell_of(name, body),
        body=body,
        name="" if name == STANDARD_INPUT else name,
        arguments=arguments,
        stdin=given,
        environment=parse_environment(environment),
        directory=directory,
        limits=limits_of(options),
    )
    terms = terms_of(options)
    machines = machines_meant(app.connection, selector, terms.tenant)
    return order_live(app, machines, action, terms, output)


def shell_of(name: str, body: bytes) -> str:
    """The interpreter by a script's first line, or else by the suffix of its name.

    Raises `InvalidError` where neither says it, or where the first line wants another one.

    >>> shell_of("a.txt", b"#!/bin/bash\\n"), shell_of("a.ps1", b"Get-Date\\n")
    ('bash', 'powershell')
    """
    choose = f"choose one with --shell: {', '.join(SHELLS)}"
    wanted = wanted_by(body)
    if wanted is not None:
        return wanted[0]
    if body.startswith(b"#!"):
        words = " ".join(line_of(body)) or "which cannot be read"
        raise InvalidError(f"its #! line names {words[:80]}, which is none of ours; {choose}")
    shell = SUFFIXES.get(PurePath(name).suffix.lower())
    if shell is None:
        raise InvalidError(f"neither a #! line nor the suffix says what runs it; {choose}")
    return shell
