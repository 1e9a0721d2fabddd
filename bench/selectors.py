"""Selectors by facts over a made-up fleet: how long the controller and the command take.

    python -m bench.selectors [--machines 10000] [--packages 700]

Every machine has sections of its own for system, cpu and memory, as real ones have. Lists
of packages come in two forms: 200 different ones, as where machines are installed alike,
and a different one on every machine, which is the worst case. The time is that from facts
to answers on a database just opened, then again; and that from the expression to machines.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from controller.db.database import Database
from controller.db.schema import inventories, machines, sections, tenants
from controller.fleet.facts import read_facts
from controller.fleet.fitting import Verdicts, fitting
from controller.fleet.inventory import pack
from controller.fleet.selector import Candidate, select_machines
from protocol.identity import OperatorIdentity, Role
from protocol.inventory import body_hash
from tests.fakes.new_database import new_database

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
TENANT = "tn_" + "0" * 26
ANN = OperatorIdentity("ann", Role.ADMIN, None)
ASKED = (
    "os.version>=12 and cpu.cores>=8",
    "memory<8g or not tag:web",
    "package:package-7<1.5",
)


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--packages", type=int, default=700)
    given = parser.parse_args()
    print("| lists of packages | selector | first | again | machines | expression |")
    print("|---|---|---:|---:|---:|---:|")
    for kinds in (200, given.machines):
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(_measure(Path(directory), given.machines, given.packages, kinds))


async def _measure(directory: Path, count: int, packages: int, kinds: int) -> None:
    url = new_database(directory / "stead.db")
    db = Database.open(url)
    await db.write(lambda c: _fill(c, count, packages, kinds))
    await db.close()
    candidates = [
        Candidate(
            _id(n), TENANT, "acme", f"m{n}", frozenset(), "Debian", linked=True, last_seen_at=NOW
        )
        for n in range(count)
    ]
    for expression in ASKED:
        words = [word for word in expression.split() if any(sign in word for sign in "<>=")]
        facts = read_facts(words)
        db = Database.open(url)
        took: list[float] = []
        verdicts = Verdicts()
        for _ in range(2):
            began = time.perf_counter()
            answers = await db.read(lambda c: fitting(c, ANN, "", facts, verdicts))  # noqa: B023 - awaited
            took.append(time.perf_counter() - began)
        began = time.perf_counter()
        known = dict(zip(words, answers, strict=True))
        found = select_machines(expression, candidates, now=NOW, facts=known)
        took.append(time.perf_counter() - began)
        await db.close()
        first, again, last = took
        print(
            f"| {kinds:,} | `{expression}` | {first:.2f} s | {again:.2f} s | {len(found):,} |"
            f" {last * 1000:.0f} ms |"
        )


def _id(number: int) -> str:
    return f"mc_{number:026}"


def _fill(connection: Connection, count: int, packages: int, kinds: int) -> None:
    connection.execute(
        insert(tenants).values(id=TENANT, name="acme", dedup_scope="tenant", created_at=NOW)
    )
    held: set[bytes] = set()
    of_kind = cache(_packages) if kinds < count else _packages
    for number in range(count):
        bodies = {
            "system": _body(
                os={"id": "debian", "version": str(10 + number % 4)}, hostname=f"m{number}"
            ),
            "cpu": _body(cores=2 ** (number % 5), model=f"model {number}"),
            "memory": _body(total_bytes=(number % 64) * 2**29 + number),
            "packages": of_kind(number % kinds, packages),
        }
        manifest = {name: body_hash(body) for name, body in bodies.items()}
        fresh = {name: digest for name, digest in manifest.items() if digest not in held}
        for packed in pack(fresh, [bodies[name] for name in fresh]):
            held.add(packed.hash)
            connection.execute(
                insert(sections).values(tenant_id=TENANT, hash=packed.hash, body=packed.body)
            )
        connection.execute(
            insert(machines).values(
                id=_id(number),
                tenant_id=TENANT,
                name=f"m{number}",
                state="active",
                public_key_hash=f"{number:032}".encode(),
                hostname="",
                agent_version="",
                enrolled_at=NOW,
            )
        )
        text = msgspec.json.encode({name: digest.hex() for name, digest in manifest.items()})
        for age in (2, 1):
            connection.execute(
                insert(inventories).values(
                    machine_id=_id(number),
                    at=NOW - timedelta(days=age),
                    tenant_id=TENANT,
                    root=b"",
                    manifest=text.decode(),
                )
            )


def _packages(kind: int, count: int) -> bytes:
    rows = [
        {
            "manager": "dpkg",
            "name": f"package-{number}",
            "arch": "amd64",
            "version": f"1.{(kind * 7 + number) % 10}-{kind}",
            "source": f"source-{number}",
            "source_version": f"1.{number}",
            "state": "installed",
        }
        for number in range(count)
    ]
    return _body(packages=rows)


def _body(**facts: Any) -> bytes:
    return msgspec.json.encode({"status": "ok", "facts": facts})


if __name__ == "__main__":
    main()
