"""What a Windows Python says of the agent's own calls; run by `test_under_wine.py`, as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from agent.host import access_list, clock
from agent.host.by_psutil import identity_of
from agent.host.files import make_private_directory, write_atomically
from agent.host.hardware import hardware
from agent.host.lock import holder_of, locked
from agent.host.process import run, started
from agent.host.zone import local_zone
from agent.services.detect import detect_services
from agent.tasks.journal import Journal, new_journal
from protocol.errors import SteadError
from protocol.limits import Limits

assert sys.platform == "win32"

GONE_WITHIN_S = 20.0
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def code_of(act: Callable[[], object]) -> str:
    """The code of the error that an act raises; empty for none."""
    try:
        act()
    except SteadError as error:
        return str(error.code)
    return ""


async def grandchild_lives() -> dict[str, Any]:
    """Whether a program's grandchild outlives it, and which limits were missed."""
    printed = bytearray()
    async with started(
        (sys.executable, "-c", PARENT),
        on_output=lambda _, data: printed.extend(data),
        limits=Limits(memory_bytes=2**28, nice=5),
    ) as child:
        child.give(b"", end=True)
        while not printed.endswith(b"\n"):
            await asyncio.sleep(0.05)
        pid = int(printed)
        born = identity_of(pid)
    deadline = time.monotonic() + GONE_WITHIN_S
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return {"born": bool(born), "lives": psutil.pid_exists(pid), "missed": list(child.missed)}


def files(folder: Path) -> dict[str, Any]:
    """Private folders, files replaced, locks, and a journal that is tidied while it is open."""
    home = folder / "a" / "b"
    make_private_directory(home)
    for content in (b"1\n2", b"1\r\n3"):
        write_atomically(home / "x", content)
    with locked(home / "lock"):
        held = [holder_of(home / "lock"), code_of(lambda: locked(home / "lock").__enter__())]
    write_atomically(home / "journal", new_journal())
    journal = Journal(home / "journal")
    pruned = journal.prune(clock.now())
    journal.close()
    return {
        "content": (home / "x").read_bytes().hex(),
        "held": [held[0] == os.getpid(), held[1]],
        "released": holder_of(home / "lock") is None,
        "others": access_list.others_at(home),
        "owner": access_list.owner_of(home) == access_list.own_sid(),
        "pruned": pruned,
    }


def services() -> dict[str, Any]:
    """The print spooler's way up and down, and a service that there is not."""
    manager = detect_services()
    states = []
    for verb in ("stop", "start", "start", "restart", "stop", "stop"):
        manager.act(verb, "Spooler")
        states.append(manager.show(["spooler"])[0].state)
    missing = code_of(lambda: manager.act("start", "no such service"))
    return {"states": states, "missing": missing}


def main() -> None:
    """Say it all."""
    with tempfile.TemporaryDirectory() as name:
        told = {
            "code": run("cmd", "/c", "exit 7").code,
            "echo": run(
                sys.executable, "-c", "import sys; print(sys.argv[1:])", "a b", 'q"', "x\\", ""
            ).stdout.decode(),
            "late": code_of(
                lambda: run(sys.executable, "-c", "import time; time.sleep(60)", timeout=2)
            ),
            "nowhere": code_of(lambda: run("no-such-program")),
            "family": asyncio.run(grandchild_lives()),
            "files": files(Path(name)),
            "services": services(),
            "hardware": len(hardware()),
            "zone": str(local_zone()),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
