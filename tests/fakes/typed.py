"""A command line that is typed, and answered by this process: a program takes ten times as long.

What differs from a program of its own is only what the system does for one: signals,
closed pipes, a locale. Tests of those start a program.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from controller.cli.main import run
from demo.installation import Installation


def typed(
    arguments: Sequence[str], *, stdin: bytes = b"", cwd: Path
) -> subprocess.CompletedProcess[bytes]:
    """Answer `stead ARGUMENTS` as a program would whose output is read through pipes."""
    printed, complained = io.BytesIO(), io.BytesIO()
    given, before = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"), sys.stdin
    out = io.TextIOWrapper(printed, encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(
        complained, encoding="utf-8", errors="backslashreplace", write_through=True
    )
    sys.stdin = given
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(arguments)
    finally:
        sys.stdin = before
    return subprocess.CompletedProcess(
        ["stead", *arguments], code, printed.getvalue(), complained.getvalue()
    )


class TypedInstallation(Installation):
    """The same commands, those of `stead` answered by this process."""

    def run(
        self, *argv: str, stdin: str = "", timeout: float = 900.0
    ) -> subprocess.CompletedProcess[str]:
        if argv[0] != "stead":
            return super().run(*argv, stdin=stdin, timeout=timeout)
        with mock.patch.dict(os.environ, self.environment):
            done = typed(argv[1:], stdin=stdin.encode(), cwd=self.home)
        return subprocess.CompletedProcess(
            argv, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
