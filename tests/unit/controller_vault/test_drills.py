"""What machines report of drills is bounded, theirs alone, and shown to who may see it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from controller.audit.log import entries
from controller.db import schema
from controller.fleet.machines import listed as machines_listed
from controller.rpc.proof import stats_to_pb
from controller.vault import drills
from controller.vault.drills import Drill, listed, report
from controller.vault.stats import figures, step_of
from protocol.errors import InvalidError, NotFoundError
from protocol.identity import OperatorIdentity, Role
from tests.unit.controller_vault.test_keeping import back_up as keep_point
from tests.unit.controller_vault.test_repair import Kept, back_up
from tests.unit.controller_vault.world import START, World, an_id, data_chunk

EVERYBODY = OperatorIdentity("ann", Role.ADMIN, None)


def a_drill(number: int = 0, **other: object) -> Drill:
    made = Drill(
        id=an_id("dr"),
        machine="",
        point=an_id("rp"),
        kind="drill",
        state="good",
        started_at=START,
        received_at=START + timedelta(minutes=number),
        took_ms=1500,
        files=20,
        bytes=4096,
        compared=19,
        wrong=0,
        message="fine",
        details="[]",
    )
    return dataclasses.replace(made, **other)  # type: ignore[arg-type]


async def test_a_drill_is_kept_once_with_an_audit_entry(world: World) -> None:
    machine = (await world.machine()).identity
    drill = a_drill()
    for _ in range(2):
        await world.db.write(lambda c: report(c, machine, drill))
    (found,) = await world.db.read(lambda c: listed(c, EVERYBODY))
    assert found == dataclasses.replace(drill, machine=machine.machine)
    log = await world.db.read(lambda c: entries(c, machine.tenant))
    assert [entry.event for entry in log] == ["drill_reported"]


async def test_a_machine_cannot_fill_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "KEPT", 10)
    machine = (await world.machine()).identity
    for number in range(25):
        for kind in ("drill", "sample"):
            one = a_drill(number, kind=kind)
            await world.db.write(lambda c, one=one: report(c, machine, one))  # type: ignore[misc]
    kept = await world.db.read(lambda c: c.scalar(select(func.count()).select_from(schema.drills)))
    assert kept == 20
    found = await world.db.read(lambda c: listed(c, EVERYBODY))
    assert [one.received_at for one in found] == [
        START + timedelta(minutes=number) for number in range(24, 14, -1)
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "x"},
        {"point": "rp_x"},
        {"kind": "other"},
        {"state": "splendid"},
        {"files": 1 << 31},
        {"bytes": 1 << 63},
        {"took_ms": -1},
        {"details": "{"},
        {"details": "[" * 100_000},
        {"details": '"' + "x" * 70_000 + '"'},
    ],
)
async def test_what_no_drill_can_be_is_refused(world: World, wrong: dict[str, object]) -> None:
    machine = (await world.machine()).identity
    with pytest.raises(InvalidError):
        await world.db.write(lambda c: report(c, machine, a_drill(**wrong)))  # type: ignore[arg-type]


async def test_drills_of_other_tenants_are_not_seen(world: World) -> None:
    mine, theirs = (await world.machine()).identity, (await world.machine()).identity
    for machine in (mine, theirs):
        await world.db.write(lambda c, who=machine: report(c, who, a_drill()))  # type: ignore[misc]
    bob = OperatorIdentity("bob", Role.AUDITOR, frozenset({mine.tenant}))
    found = await world.db.read(lambda c: listed(c, bob))
    assert {one.machine for one in found} == {mine.machine}
    for tenant, of in ((theirs.tenant, ""), ("", theirs.machine)):
        with pytest.raises(NotFoundError):
            await world.db.read(lambda c, t=tenant, m=of: listed(c, bob, t, m))  # type: ignore[misc]


async def test_a_listing_says_the_last_good_drill_and_how_the_newest_ended(world: World) -> None:
    machine = (await world.machine()).identity
    for number, state in enumerate(["good", "good", "failed"]):
        one = a_drill(number, state=state)
        await world.db.write(lambda c, one=one: report(c, machine, one))  # type: ignore[misc]
    sample = a_drill(9, kind="sample")
    await world.db.write(lambda c: report(c, machine, sample))
    (found,) = await world.db.read(lambda c: machines_listed(c, EVERYBODY))
    assert found.last_drill_at == START + timedelta(minutes=1)
    assert found.drill_state == "failed"


async def test_figures_are_those_of_the_points_and_packs(world: World) -> None:
    kept = Kept(await world.machine(), [data_chunk(b"%d" % n * 5000) for n in range(10)])
    for _ in range(3):
        await back_up(world, kept, kept.leaves)
        world.clock.advance(days=4)
    tenant = kept.machine.identity.tenant
    found = await world.db.read(lambda c: figures(c, tenant))
    assert (found.points, found.chunks) == (3, 11)
    assert found.pack_bytes == sum(size for _, size in world.store.list(f"{tenant}/packs/"))
    assert sum(piece.points for piece in found.growth.values()) == 3
    assert list(found.growth) == sorted(found.growth)
    # Points of a release that did not say what it sent: nobody makes a figure up.
    assert not found.unique_is_known
    machine = found.machines[kept.machine.identity.machine]
    assert (machine.points, machine.first_at) == (3, START)


async def test_figures_count_named_streams_as_far_as_restore_points_say_them(world: World) -> None:
    who = await world.machine()
    for totals in ({"bytes": 100}, {"bytes": 100, "stream_bytes": 7}):
        await keep_point(world, who, **totals)
    found = await world.db.read(lambda c: figures(c, who.identity.tenant))
    assert (found.logical_bytes, found.newest_bytes, found.stream_bytes) == (207, 107, 7)
    (machine,) = found.machines.values()
    assert (machine.logical_bytes, machine.newest_bytes, machine.stream_bytes) == (207, 107, 7)
    assert sum(piece.logical_bytes for piece in found.growth.values()) == 207


async def test_a_machine_that_makes_figures_up_does_not_break_those_of_others(world: World) -> None:
    who = await world.machine()
    most = (1 << 63) - 1
    for _ in range(3):
        await keep_point(world, who, bytes=most, stream_bytes=most, new_plain_bytes=most)
    found = await world.db.read(lambda c: figures(c, who.identity.tenant))
    assert found.logical_bytes == 6 * most
    said = stats_to_pb(found)
    assert said.logical_bytes == said.machines[0].logical_bytes == (1 << 64) - 1


def test_a_step_begins_at_or_before_its_times() -> None:
    for hours in range(0, 400, 7):
        at = START + timedelta(hours=hours)
        for step in (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)):
            assert step_of(at, step) <= at < step_of(at, step) + step
