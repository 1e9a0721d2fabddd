"""An audit log of a million entries: written, signed, verified, exported and filtered.

    python -m bench.audit [--entries 1000000]

Entries are written as acts write them, a thousand in each transaction here, with a checkpoint
after each thousand. Then a controller and `stead audit` run as processes of their own; memory
is the most that either took, processor time that of the command. One entry in a thousand is of
the rare event that is filtered for. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, delete, insert

from bench.memory_use import peak_of
from controller.audit.checkpoints import Checkpoints, Sealer
from controller.audit.log import append
from controller.audit.tree import stored_node
from controller.authority.authority import load_authority
from controller.config import ControllerHome
from controller.db.database import Database
from controller.db.schema import audit_checkpoints, audit_nodes, tenants
from protocol.merkle import prove_inclusion
from tests.fakes.new_database import new_installation

STEAD = [sys.executable, "-c", "from controller.cli.main import main; main()"]
TENANT = "tn_" + "0" * 26
AT_ONCE = 1000
RARE = 1000
SINGLE = 200
ROW = "| {:<52} | {:>9} | {:>9} | {:>9} | {:>10} |"


@dataclass(frozen=True)
class Place:
    """Where all of it happens; `began` is the time of the first entry, a second before the next."""

    home: Path
    began: datetime

    def act(self, first: int, count: int, connection: Connection) -> None:
        """Write entries as acts do."""
        for number in range(first, first + count):
            event = "machine_renamed" if number % RARE == 0 else "order_submitted"
            body = {
                "order": f"or_{number:026}",
                "machines": [f"mc_{number % 500:026}"],
                "reason": "the reason in the operator's own words",
                "action": "run_program",
            }
            at = self.began + timedelta(seconds=number)
            append(connection, TENANT, f"operator/ann-{number % 7}", event, body, at)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    count = parser.parse_args().entries
    print(ROW.format("what", "time", "processor", "command", "controller"))
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory) / "home", datetime.now(UTC) - timedelta(seconds=count))
        new_installation(place.home)
        asyncio.run(_write(place, count))
        with _controller(place) as controller:
            _commands(place, controller, count)
        asyncio.run(_sign_all(place))
        asyncio.run(_prove(place, count))


def _say(
    what: str, seconds: float, processor: float, command_kib: int = 0, controller_kib: int = 0
) -> None:
    took = [f"{one:.1f} s" if one >= 1 else f"{one * 1000:.2f} ms" for one in (seconds, processor)]
    memory = [f"{kib / 1024:.0f} MiB" if kib else "" for kib in (command_kib, controller_kib)]
    print(ROW.format(what, *took, *memory), flush=True)


class Watch:
    """Stops the time and the processor time of this process."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        """Seconds since it was made."""
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def _mean(took: list[tuple[float, float]], of: int = 1) -> tuple[float, float]:
    return tuple(sum(column) / len(took) / of for column in zip(*took, strict=True))


def _open(place: Place) -> tuple[Database, Checkpoints]:
    home = ControllerHome(place.home / "controller")
    authority = load_authority(home, datetime.now(UTC))
    der = authority.issuing.certificate.public_bytes(Encoding.DER)
    db = Database.open(home.database_url(home.load_settings()))
    return db, Checkpoints(db, lambda: Sealer(authority.issuing.key, der))


async def _write(place: Place, count: int) -> None:
    db, signing = _open(place)
    row = {"id": TENANT, "name": "acme", "dedup_scope": "tenant", "created_at": place.began}
    await db.write(lambda c: c.execute(insert(tenants), row).rowcount)
    written, signed, single = [], [], []
    for first in range(0, count, AT_ONCE):
        watch = Watch()
        await db.write(lambda c, n=first: place.act(n, AT_ONCE, c))  # type: ignore[misc]
        written.append(watch.stop())
        watch = Watch()
        await signing.make(TENANT)
        signed.append(watch.stop())
    tenth = max(1, len(written) // 10)
    for name, took, each in (
        ("an entry written", written, AT_ONCE),
        ("a checkpoint of 1,000 more", signed, 1),
    ):
        _say(f"{name}, among the first tenth", *_mean(took[:tenth], each))
        _say(f"{name}, among the last tenth", *_mean(took[-tenth:], each))
    for number in range(SINGLE):
        watch = Watch()
        await db.write(lambda c, n=count + number: place.act(n, 1, c))  # type: ignore[misc]
        single.append(watch.stop())
    _say("an act of one entry, durable, one after the other", *_mean(single))
    await db.close()


async def _sign_all(place: Place) -> None:
    """What a controller does once with a log that nobody has signed before."""
    db, signing = _open(place)
    for table in (audit_checkpoints, audit_nodes):
        await db.write(lambda c, t=table: c.execute(delete(t)).rowcount)  # type: ignore[misc]
    with peak_of(psutil.Process()) as peak:
        watch = Watch()
        await signing.make(TENANT)
        _say("the first checkpoint of all of it", *watch.stop(), 0, peak())
    await db.close()


async def _prove(place: Place, count: int) -> None:
    """Proofs that entries are in the log, as a filtered export wants them."""
    db, _ = _open(place)
    for what, leaves in (
        ("a proof, of entries a thousand apart", range(0, count, RARE)),
        ("a proof, of 500 in a row", range(count // 2, count // 2 + 500)),
    ):
        watch = Watch()

        def prove(connection: Connection, leaves: range = leaves) -> None:
            node = stored_node(connection, TENANT)
            for leaf in leaves:
                prove_inclusion(leaf, count, node)

        await db.read(prove)
        _say(what, *_mean([watch.stop()], len(leaves)))
    await db.close()


@contextmanager
def _controller(place: Place) -> Iterator[psutil.Process]:
    serve = [*STEAD, "--home", str(place.home), "controller", "serve"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        address = running.stdout.readline().decode().split()[1]
        (place.home / "operator" / "config.toml").write_text(f'address = "{address}"\n')
        try:
            yield psutil.Process(running.pid)
        finally:
            running.terminate()


def _commands(place: Place, controller: psutil.Process, count: int) -> None:
    whole, part, table = (place.home / name for name in ("whole", "part", "table"))
    since = (place.began + timedelta(seconds=count - 100)).isoformat()
    acme = ("--tenant", "acme")
    rare = ("--event", "machine_renamed")
    steps = (
        ("verify: the log of the controller", ("verify", *acme)),
        ("export, all", ("export", *acme, "--output-file", whole)),
        ("verify --from: all", ("verify", "--from", whole)),
        ("compare with itself: all", ("compare", whole, whole)),
        (
            f"export of {count // RARE:,} by event, with proofs",
            ("export", *acme, *rare, "--output-file", part),
        ),
        ("verify --from: those by event", ("verify", "--from", part)),
        ("export as CSV", ("export", *acme, "--format", "csv", "--output-file", table)),
        ("ls: the newest 100", ("ls", *acme)),
        ("ls: the newest 100 of a rare event", ("ls", *acme, *rare)),
        ("ls: of an event that never was", ("ls", *acme, "--event", "never")),
        ("ls: the last 100 seconds", ("ls", *acme, "--since", since)),
        (
            "ls: the newest 5,000 by one operator",
            ("ls", *acme, "--actor", "ann-3", "--limit", 5000),
        ),
    )
    for what, words in steps:
        argv = [*STEAD, "--home", str(place.home), "audit", *map(str, words)]
        used, began = _children(), time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
            with peak_of(psutil.Process(running.pid)) as mine, peak_of(controller) as theirs:
                assert running.stderr is not None
                said = running.stderr.read().decode()
                code = running.wait()
            took = time.perf_counter() - began
        if code:
            raise RuntimeError(f"{words}: {code}: {said}")
        _say(what, took, _children() - used, mine(), theirs())
    for file in (whole, part, table):
        print(f"{file.name}: {file.stat().st_size / 1e6:,.1f} MB", file=sys.stderr)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
