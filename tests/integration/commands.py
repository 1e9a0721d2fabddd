"""`stead` in a process of its own, against an installation of the test's."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.integration.conftest import Installation

STEAD = "import sys; from controller.cli.main import run; sys.exit(run(sys.argv[1:]))"


async def stead(
    installation: Installation,
    *words: str,
    code: int = 0,
    home: Path | None = None,
    env: dict[str, str] | None = None,
    error: bool = False,
) -> str:
    """Run `stead`, by default as the first administrator; what it printed.

    `error`: what it said on standard error instead.
    """
    where = installation.made.operator.path.parent if home is None else home
    argv = ["--home", str(where), "--controller", installation.link_address, *words]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STEAD,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await process.communicate()
    assert process.returncode == code, err
    return (err if error else out).decode()
