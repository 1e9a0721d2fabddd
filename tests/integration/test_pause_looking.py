"""What only looks at a machine waits for its administrator too, and ends when told to.

That nothing was looked at before is seen by what changed meanwhile: it is in the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.action import Action, CompareLive, PlanBackup, RunBackup, RunDrill
from protocol.vault.comparison import Terms, seal_terms
from protocol.vault.point import decode_envelope, verify_point
from protocol.vault.seal import public_key
from tests.faults.backup_world import World, body_of

FILES = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("looking") / "world")
    for number in range(FILES):
        (made.files / f"{number:03}").write_bytes(os.urandom(5_000))
    backup = made.work(RunBackup((bytes(made.files),), seal_to_machine=True))
    assert backup is not None
    assert backup["state"] == "succeeded", backup
    yield made
    made.kill_controller()


def plan(world: World) -> Action:
    return PlanBackup((bytes(world.files),))


def compare(world: World) -> Action:
    record = world.points()[0].record
    point = verify_point(decode_envelope(record))
    order, _ = world.order(record, world.files)
    asked = Terms(
        (bytes(world.files),), X25519PrivateKey.generate().public_key().public_bytes_raw()
    )
    sealed = seal_terms(
        asked,
        public_key(world.sealing_public()),
        tenant=point.tenant,
        machine=point.machine,
        point=point.id,
    )
    path = bytes(world.files).lstrip(b"/")
    return CompareLive(point.id, path, order.sealed_references, sealed, point.rules)


def drill(_world: World) -> Action:
    return RunDrill(max_files=FILES)


def changed(world: World) -> None:
    """Other times for all files, and one more."""
    for path in world.files.iterdir():
        os.utime(path, ns=(0, 0))
    (world.files / "new").touch()


def restored(world: World, times: Mapping[str, int]) -> None:
    (world.files / "new").unlink()
    for name, time in times.items():
        os.utime(world.files / name, ns=(time, time))


def work(world: World, action: Action, while_paused: Callable[[], object]) -> tuple[Any, list[str]]:
    """Do something when the worker says that it is paused; its result, and what it told."""
    phases: list[str] = []

    def hear(said: Mapping[str, Any]) -> None:
        if said["phase"] == "paused" and "paused" not in phases:
            while_paused()
        phases.append(said["phase"])

    must = world.installation.must
    must("stead-agent", "backup", "pause")
    try:
        return world.work(action, (), hear), phases
    finally:
        must("stead-agent", "backup", "resume")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (plan, lambda body: body["files"] == FILES + 1),
        (compare, lambda body: (body["added"], body["changed"]) == (1, FILES)),
        (drill, lambda body: (body["files"], body["compared"]) == (FILES, 0)),
    ],
    ids=["plan", "compare", "drill"],
)
def test_it_waits_while_paused_and_then_looks(
    world: World, make: Callable[[World], Action], found: Callable[[dict[str, Any]], bool]
) -> None:
    action = make(world)
    times = {path.name: path.stat().st_mtime_ns for path in world.files.iterdir()}

    def change_and_resume() -> None:
        changed(world)
        world.installation.must("stead-agent", "backup", "resume")

    try:
        result, phases = work(world, action, change_and_resume)
    finally:
        restored(world, times)
    assert phases[0] == "paused"
    assert result is not None
    assert result["state"] == "succeeded", result
    assert found(body_of(result)), body_of(result)


@pytest.mark.parametrize("make", [plan, compare, drill], ids=["plan", "compare", "drill"])
def test_a_cancel_on_the_machine_ends_it(world: World, make: Callable[[World], Action]) -> None:
    result, phases = work(
        world,
        make(world),
        lambda: world.installation.must("stead-agent", "backup", "cancel"),
    )
    assert phases == ["paused"]
    assert result is not None
    assert result["state"] == "cancelled", result
    assert "cancelled on the machine by" in result["message"]
