"""Run a script: its body in a private file, its arguments as they are, no shell in between."""

from __future__ import annotations

import os
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config import AgentHome
from agent.host.descriptor import OURS
from agent.host.environment import ENVIRONMENT, find_program, path_in
from agent.host.files import make_private_directory
from protocol.action import RunProgram, RunScript
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import TaskId
from protocol.script import SHELLS, wanted_by

PROGRAMS = {
    "sh": ("sh",),
    "bash": ("bash",),
    "python": ("python3", "python"),
    "powershell": ("pwsh", "powershell"),
}
"""What an interpreter is called; the first that a machine has is taken."""

PROGRAMS_OF_WINDOWS = {
    "python": ("python3", "python", "py"),
    "powershell": ("powershell", "pwsh"),
}
"""The last of Python's names is its launcher, the only one that lies in a system's folder. What is
called bash there is another system in this one, which does not find the script.
"""

SUFFIXES = {"sh": ".sh", "bash": ".sh", "python": ".py", "powershell": ".ps1"}


def names_of(shell: str, system: str) -> tuple[str, ...]:
    """What an interpreter is called on a system; PRECONDITION where it has none.

    >>> names_of("bash", "linux"), names_of("powershell", "win32")
    (('bash',), ('powershell', 'pwsh'))
    """
    names = (PROGRAMS_OF_WINDOWS if system == "win32" else PROGRAMS).get(shell)
    if names is None:
        raise SteadError(
            f"a Windows machine has no {shell} that could run this; it has "
            f"{' and '.join(PROGRAMS_OF_WINDOWS)}",
            code=Code.PRECONDITION,
        )
    return names


def interpreter(script: RunScript) -> tuple[str, ...]:
    """The interpreter on this machine with the flags that the script's own first line gives it.

    Raises INVALID for one that no order can name, PRECONDITION where the machine has none.
    """
    if script.shell not in SHELLS:
        raise InvalidError(
            f"{script.shell[:40]!r} is no interpreter; there are {', '.join(SHELLS)}"
        )
    path = path_in(script.environment, ENVIRONMENT["PATH"])
    names = names_of(script.shell, sys.platform)
    program = next(filter(None, (find_program(name, path) for name in names)), None)
    if program is None:
        raise SteadError(
            f"this machine has no {script.shell}: there is no {' or '.join(names)} in {path[:200]}",
            code=Code.PRECONDITION,
        )
    if script.shell == "powershell":
        policy = ("-ExecutionPolicy", "Bypass") if sys.platform == "win32" else ()
        return (program, "-NoProfile", "-NonInteractive", *policy, "-File")
    wanted = wanted_by(script.body)
    flags = wanted[1] if wanted is not None and wanted[0] == script.shell else ()
    return (program, *flags)


def as_read(body: bytes, program: str) -> bytes:
    """A script's body as its interpreter has to find it.

    Windows PowerShell takes a file for one in the machine's old code page, unless it begins
    with the mark of UTF-8; what an order carries is UTF-8.
    """
    if program.lower().endswith("powershell.exe") and not body.startswith(BOM_UTF8):
        return BOM_UTF8 + body
    return body


@contextmanager
def laid_out(home: AgentHome, task: TaskId, script: RunScript) -> Iterator[RunProgram]:
    """The program that runs the script, whose file is there as long as the block lasts.

    Raises what `interpreter` raises, and STORE_FULL when the file cannot be written.
    """
    program = interpreter(script)
    path = home.scripts / f"{task}{SUFFIXES[script.shell]}"
    try:
        try:
            make_private_directory(home.scripts)
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OURS, 0o600)
            with os.fdopen(number, "wb") as file:
                file.write(as_read(script.body, program[0]))
        except OSError as error:
            raise SteadError(
                f"the script cannot be written to {home.scripts}: {error.strerror}",
                code=Code.STORE_FULL,
            ) from error
        yield RunProgram(
            argv=(*program, str(path), *script.arguments),
            stdin=script.stdin,
            environment=script.environment,
            directory=script.directory,
            limits=script.limits,
        )
    finally:
        path.unlink(missing_ok=True)


def remove_scripts(home: AgentHome) -> None:
    """Remove the scripts that an agent which was killed left; only before any is running."""
    if not home.scripts.is_dir():
        return
    for path in sorted(Path(home.scripts).iterdir()):
        path.unlink(missing_ok=True)
