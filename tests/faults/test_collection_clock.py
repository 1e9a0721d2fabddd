"""The controller's clock is wrong by days: nothing is forgotten by rules or collected early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from controller.vault.collect.condemn import Collected
from controller.vault.collect.steady import ClockLeaptError
from controller.vault.forget import keeping
from controller.vault.forget.retention import Rules
from tests.unit.controller_vault.test_keeping import act, back_up, listed, machine_of
from tests.unit.controller_vault.world import Member, World

RULES = Rules(within_s=3 * 86_400, floor=1)


class Clocks:
    """What time it is, and what the controller's clock says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ticks = 0.0

    def read(self) -> float:
        return self.ticks

    def pass_by(self, **time: float) -> None:
        self._world.clock.advance(**time)
        self.ticks += timedelta(**time).total_seconds()

    def set(self, **ahead: float) -> None:
        self._world.clock.advance(**ahead)


@pytest.fixture
async def clocks(tmp_path: Path) -> AsyncIterator[Clocks]:
    world = World.make(tmp_path, pack_bytes=4_000)
    made = Clocks(world)
    world.options["ticks"] = made.read
    await world.restart()
    yield made
    await world.close()


@pytest.fixture
async def world(clocks: Clocks) -> World:
    return clocks._world


@pytest.fixture
async def who(world: World) -> Member:
    return await world.machine()


def collect(world: World, who: Member) -> Collected:
    done = Collected()
    for _ in world.vault.collector.run(who.identity.tenant, done):
        pass
    return done


async def three_points(world: World, clocks: Clocks, who: Member) -> list[str]:
    """The oldest is forgotten by a person, the next is on hold."""
    made = []
    for _ in range(3):
        made.append((await back_up(world, who))[0])
        clocks.pass_by(hours=1)
    act(world, keeping.set_rules, who.identity.tenant, "", RULES)
    act(world, keeping.hold, machine_of(who), made[1], "a lawsuit")
    act(world, keeping.forget_named, machine_of(who), made[:1], "a test")
    return made


@pytest.mark.parametrize("days", [8])
async def test_a_clock_that_is_set_ahead_makes_nothing_due(
    world: World, clocks: Clocks, who: Member, days: int
) -> None:
    made = await three_points(world, clocks, who)
    before = sorted(key for key, _ in world.store.list())
    clocks.set(days=days)
    with pytest.raises(ClockLeaptError, match="set ahead by"):
        collect(world, who)
    await world.vault.keeper.keep_all()
    for _ in range(5):
        clocks.pass_by(hours=4)
        with pytest.raises(ClockLeaptError):
            collect(world, who)
    assert sorted(key for key, _ in world.store.list()) == before
    assert listed(world) == set(made[1:])
    # Somebody has seen it.
    clocks.set(days=-days)
    assert collect(world, who).purged_points == 0
    act(world, keeping.bring_back, machine_of(who), made[0])
    assert listed(world) == set(made)


async def test_by_a_clock_that_leapt_a_year_and_came_back_no_rule_forgets(
    world: World, clocks: Clocks, who: Member
) -> None:
    """Neither the keeper's own forgetting nor an operator's `forget --by-rule`."""
    made = [(await back_up(world, who))[0] for _ in range(3)]
    clocks.ticks += timedelta(hours=3).total_seconds()
    act(world, keeping.set_rules, who.identity.tenant, "", RULES)
    keeper = world.vault.keeper
    assert await keeper.forget_by_rules(machine_of(who), actor="operator/ada") == []
    clocks.set(days=365)
    for _ in range(2):
        with pytest.raises(ClockLeaptError, match="set ahead by 365 days"):
            await keeper.forget_by_rules(machine_of(who), actor="operator/ada")
        await keeper.keep_all()
        assert listed(world) == set(made)
        clocks.pass_by(hours=2)
    clocks.set(days=-365)
    assert await keeper.forget_by_rules(machine_of(who), actor="operator/ada") == []
    collect(world, who)
    assert listed(world) == set(made)
    clocks.pass_by(days=4)
    assert await keeper.forget_by_rules(machine_of(who), actor="operator/ada") == made[1::-1]


async def test_a_clock_that_stays_ahead_is_believed_after_a_day(
    world: World, clocks: Clocks, who: Member
) -> None:
    await three_points(world, clocks, who)
    clocks.set(days=30)
    with pytest.raises(ClockLeaptError):
        collect(world, who)
    clocks.pass_by(hours=25)
    assert collect(world, who).purged_points == 1


async def test_a_clock_that_is_set_back_puts_off_and_loses_nothing(
    world: World, clocks: Clocks, who: Member
) -> None:
    made = await three_points(world, clocks, who)
    clocks.set(days=-10)
    for _ in range(3):
        clocks.pass_by(days=3)
        assert collect(world, who).purged_points == 0
    # Ten days of the right time are over, and ten more by the wrong one.
    clocks.set(days=10)
    with pytest.raises(ClockLeaptError):
        collect(world, who)
    clocks.pass_by(days=1, hours=1)
    assert collect(world, who).purged_points == 1
    act(world, keeping.release, machine_of(who), made[1], "it is over")
    assert made[1] in listed(world)


async def test_what_was_condemned_by_a_clock_of_the_past_has_its_grace(
    world: World, clocks: Clocks, who: Member
) -> None:
    await three_points(world, clocks, who)
    clocks.pass_by(days=8)
    clocks.set(days=-3)
    clocks.pass_by(days=3)
    # The point is purged and what it needs condemned, three days ago as the right clock says.
    assert collect(world, who).condemned_chunks > 0
    clocks.set(days=3)
    with pytest.raises(ClockLeaptError):
        collect(world, who)
    clocks.pass_by(hours=23)
    with pytest.raises(ClockLeaptError):
        collect(world, who)
    clocks.pass_by(hours=2)
    assert collect(world, who).swept.dropped_packs > 0


async def test_a_small_step_is_none(world: World, clocks: Clocks, who: Member) -> None:
    await three_points(world, clocks, who)
    collect(world, who)
    for hours in (11, -11):
        clocks.set(hours=hours)
        assert collect(world, who).purged_points == 0
    clocks.pass_by(days=30)
    assert collect(world, who).purged_points == 1
