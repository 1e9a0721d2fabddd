"""A collection killed, or failed by its disk, at any call loses no restore point.

It runs in another process under strace, which kills it at the Nth system call, or makes
that call and all after it fail. Afterwards every restore point that was kept is read, and
a collection that is let finish gives the room back all the same. The counts are printed.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.faults.collection_world import (
    KILLED_AT,
    PACK_BYTES,
    Fault,
    Tally,
    collect,
    finish,
    prepare,
    run,
    stored_bytes,
)

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="not run: no strace")

SAMPLED = [
    Fault("fsync", 5),
    Fault("fdatasync", 12),
    Fault("unlink", 9),
    Fault("fsync", 7, "EIO"),
    Fault("pread64", 120, "EIO"),
    Fault("pwrite64", 60, "ENOSPC"),
    # While what is kept of a pack is written anew.
    Fault("linkat", 1, "ENOSPC"),
]
STRIDE = {"pwrite64": 3, "pread64": 20}
"""The database writes its pages one by one: every third is enough; and so on."""
FIRST = {"pread64": 20}
"""Those before load the program's libraries."""
CHANGING = [call for call in KILLED_AT if call != "link"]
"""What a collection calls; its links are all made by linkat."""
UNLIKE_FULL = {"unlink"}
"""A full disk never fails these."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("collection") / "home"
    asyncio.run(prepare(home))
    return home


@pytest.fixture(scope="module")
def most_bytes(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """What may be stored in the end: a fault may cost a pack of room, and no more."""
    home = tmp_path_factory.mktemp("whole") / "home"
    shutil.copytree(prepared, home)
    asyncio.run(collect(home))
    stored = stored_bytes(home)
    assert stored + PACK_BYTES < stored_bytes(prepared)
    return stored + PACK_BYTES


def strike(prepared: Path, home: Path, fault: Fault, tally: Tally, most_bytes: int) -> bool:
    """Whether the fault came to pass; what became of the vault is in the tally."""
    shutil.copytree(prepared, home)
    tally.tried += 1
    struck = run(home, fault).is_struck
    tally.struck += struck
    asyncio.run(finish(home, tally, most_bytes))
    shutil.rmtree(home)
    assert (tally.lost, tally.wrong) == (0, 0), (fault, str(tally))
    return struck


@pytest.mark.parametrize("fault", SAMPLED, ids=lambda one: one.inject)
def test_a_collection_that_is_struck_loses_nothing(
    prepared: Path, most_bytes: int, tmp_path: Path, fault: Fault
) -> None:
    assert strike(prepared, tmp_path / "home", fault, Tally(), most_bytes)


@pytest.fixture(scope="module")
def calls(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many calls of each kind a whole collection makes."""
    home = tmp_path_factory.mktemp("counted") / "home"
    shutil.copytree(prepared, home)
    return run(home, None).calls


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("how", "call"),
    [
        *(("KILL", call) for call in CHANGING),
        *(("EIO", call) for call in (*CHANGING, "pread64")),
        *(("ENOSPC", call) for call in CHANGING if call not in UNLIKE_FULL),
    ],
)
def test_a_collection_struck_anywhere_loses_nothing(
    prepared: Path, most_bytes: int, calls: dict[str, int], tmp_path: Path, how: str, call: str
) -> None:
    tally = Tally()
    for number in range(FIRST.get(call, 1), calls[call] + 1, STRIDE.get(call, 1)):
        strike(prepared, tmp_path / "home", Fault(call, number, how), tally, most_bytes)
    print(f"{how} at {call}: {tally}")
    assert tally.struck == tally.tried
