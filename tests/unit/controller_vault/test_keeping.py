"""Rules, holds, freezes and forgetting, over a real database; and the daily keeper."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from controller.db.schema import audit, points
from controller.fleet import machines
from controller.vault import freezing, index
from controller.vault.alarm import Figures, first_alarm, judge
from controller.vault.collect.condemn import Collected
from controller.vault.forget import keeping
from controller.vault.forget.retention import Rules
from controller.vault.keeper import Progress
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.vault.chunk import ChunkId
from protocol.vault.point import Signs, Totals
from tests.unit.controller_vault.world import (
    START,
    Member,
    World,
    a_point,
    an_id,
    data_chunk,
    tree_chunk,
)

ADA = "operator/ada"
FULL = Totals(files=1000, bytes=1 << 30)
HALF = 1 << 29


async def back_up(world: World, who: Member, **totals: Any) -> tuple[str, list[ChunkId]]:
    begun = await world.vault.begin(who.identity, an_id("rp"))
    made = [data_chunk(os.urandom(500)) for _ in range(3)]
    root = tree_chunk(b"root", [identity for identity, _ in made])
    await world.send(who, begun, [[stored for _, stored in [*made, root]]], flush=True)
    point = a_point(who, root[0], begun, totals=Totals(**totals))
    session = begun.session
    done = await world.vault.commit(who.identity, session.id, session.fence, who.sign(point))
    world.clock.advance(hours=1)
    return done.point, [identity for identity, _ in [*made, root]]


def machine_of(who: Member) -> freezing.Machine:
    return freezing.Machine(who.identity.machine, who.identity.tenant)


def act(world: World, what: Any, *args: Any) -> Any:
    return world.db.write_now(lambda c: what(c, *args, actor=ADA, at=world.clock.at))


def listed(world: World) -> set[str]:
    return set(world.db.read_now(lambda c: c.scalars(select(points.c.id)).all()))


def events(world: World, tenant: str) -> list[str]:
    return list(
        world.db.read_now(
            lambda c: c.scalars(
                select(audit.c.event).where(audit.c.tenant_id == tenant).order_by(audit.c.seq)
            ).all()
        )
    )


def machine_row(world: World, machine: freezing.Machine) -> machines.Machine:
    """The machine as `stead machine ls` has it."""
    admin = OperatorIdentity("ada", Role.ADMIN, None)
    rows = world.db.read_now(lambda c: machines.listed(c, admin))
    return next(row for row in rows if row.id == machine.id)


async def run(world: World, tenant: str, **options: Any) -> Collected:
    last: Progress | None = None
    async for progress in world.vault.keeper.collect(tenant, **options):
        last = progress
    assert last is not None
    assert last.is_finished
    return last.done


async def test_what_no_rule_keeps_is_forgotten_and_its_room_given_back(world: World) -> None:
    who = await world.machine()
    tenant = who.identity.tenant
    made = [await back_up(world, who) for _ in range(5)]
    act(world, keeping.set_rules, tenant, "", Rules(last=2, floor=2))
    world.clock.advance(days=3)
    await world.vault.keeper.keep_all()
    assert listed(world) == {point for point, _ in made[3:]}
    # Until the undo period is over all of it can be had back.
    act(world, keeping.bring_back, machine_of(who), made[0][0])
    assert await world.read(who, made[0][1])
    act(world, keeping.hold, machine_of(who), made[0][0], "a lawsuit")
    for _ in range(2):
        world.clock.advance(days=8)
        await world.vault.keeper.keep_all()
    assert listed(world) == {made[0][0], made[3][0], made[4][0]}
    alive = {chunk for n in (0, 3, 4) for chunk in made[n][1]}
    gone = {chunk for n in (1, 2) for chunk in made[n][1]}
    present = partial(index.present, tenant=tenant, ids=alive | gone)
    assert world.db.read_now(present) == alive
    stored = sum(size for _, size in world.store.list(f"{tenant}/packs/"))
    assert stored < 10_000
    for n in (0, 3, 4):
        assert len(await world.read(who, made[n][1])) == 4
    said = events(world, tenant)
    for event in ("points_forgotten", "point_held", "point_brought_back", "point_purged"):
        assert event in said


async def test_a_dry_run_changes_nothing_and_says_what_could_go(world: World) -> None:
    who = await world.machine()
    made = [await back_up(world, who) for _ in range(5)]
    act(world, keeping.forget_named, machine_of(who), [made[0][0]], "a test")
    world.clock.advance(days=20)
    list(world.vault.collector.run(who.identity.tenant, Collected()))
    before = events(world, who.identity.tenant)
    done = await run(world, who.identity.tenant, dry_run=True)
    assert done.chunks == 20
    assert events(world, who.identity.tenant) == before


def check(world: World, machine: freezing.Machine, named: list[str]) -> list[str]:
    """What a dry run answers."""
    at = world.clock.now()
    return world.db.read_now(lambda c: keeping.check_forgetting(c, machine, named, at))


async def test_what_may_not_be_forgotten_is_refused(world: World) -> None:
    who = await world.machine()
    machine = machine_of(who)
    made = [point for point, _ in [await back_up(world, who) for _ in range(4)]]
    act(world, keeping.hold, machine, made[0], "a lawsuit")
    for named, word in (
        ([made[0]], "hold"),
        ([made[3]], "newest"),
        ([made[1], made[2]], "floor"),
    ):
        with pytest.raises(SteadError, match=word) as refused:
            act(world, keeping.forget_named, machine, named, "because")
        assert refused.value.code is Code.PRECONDITION
        with pytest.raises(SteadError, match=word):
            check(world, machine, named)
    with pytest.raises(InvalidError, match="why"):
        act(world, keeping.forget_named, machine, [made[1]], " ")
    assert listed(world) == set(made)
    act(world, keeping.release, machine, made[0], "it is over")
    assert check(world, machine, [made[0], made[0]]) == [made[0]]
    assert listed(world) == set(made)
    assert act(world, keeping.forget_named, machine, [made[0]], "because") == [made[0]]


async def test_another_machines_point_is_unknown(world: World) -> None:
    one, other = await world.machine(), await world.machine()
    point, _ = await back_up(world, one)
    for what in (keeping.hold, keeping.release):
        with pytest.raises(SteadError) as refused:
            act(world, what, machine_of(other), point, "because")
        assert refused.value.code is Code.NOT_FOUND


async def test_a_machine_that_looks_encrypted_forgets_nothing_until_somebody_looked(
    world: World,
) -> None:
    who = await world.machine()
    machine, tenant = machine_of(who), who.identity.tenant
    act(world, keeping.set_rules, tenant, machine.id, Rules(last=1, floor=1))
    for _ in range(4):
        await back_up(world, who, files=1000, bytes=1 << 30)
    bad, _ = await back_up(
        world,
        who,
        files=1000,
        bytes=1 << 30,
        read_files=990,
        read_bytes=1 << 30,
        new_bytes=(1 << 30) - 1000,
    )
    # At once, not when it comes to forgetting.
    assert "retention_frozen" in events(world, tenant)
    assert machine_row(world, machine).frozen_at is not None
    world.clock.advance(days=3)
    await world.vault.keeper.keep_all()
    assert len(listed(world)) == 5
    assert events(world, tenant).count("retention_frozen") == 1
    assert "as if encrypted" in " ".join(machine_row(world, machine).frozen)
    plan = world.db.read_now(partial(keeping.plan, machine=machine, now=world.clock.at))
    assert plan.alarm is not None
    assert plan.alarm.point == bad
    assert not plan.doomed
    with pytest.raises(SteadError, match="looks wrong"):
        act(world, keeping.forget_named, machine, [next(iter(listed(world)))], "because")
    act(world, freezing.unfreeze, machine, "the disk was encrypted on purpose")
    assert machine_row(world, machine).frozen == ()
    assert len(act(world, keeping.forget_by_rules, machine)) == 4
    assert listed(world) == {bad}
    assert {"retention_frozen", "retention_unfrozen"} <= set(events(world, tenant))


async def test_what_was_forgotten_before_can_be_had_back_for_as_long_as_a_machine_is_frozen(
    world: World,
) -> None:
    who, other = await world.machine(), await world.machine()
    machine, tenant = machine_of(who), who.identity.tenant
    made = [await back_up(world, who, files=1000, bytes=1 << 30) for _ in range(4)]
    act(world, keeping.forget_named, machine, [made[0][0]], "a week before it is noticed")
    others = [(await back_up(world, other))[0] for _ in range(4)]
    act(world, keeping.forget_named, machine_of(other), [others[0]], "because")
    await back_up(world, who, files=100, bytes=1 << 30)
    for _ in range(3):
        world.clock.advance(days=8)
        await world.vault.keeper.keep_all()
    forgotten = partial(keeping.forgotten_of, machine=machine)
    assert world.db.read_now(forgotten) == [made[0][0]]
    assert len(await world.read(who, made[0][1])) == 4
    # Of others it goes as ever.
    assert not world.db.read_now(partial(keeping.forgotten_of, machine=machine_of(other)))
    act(world, freezing.unfreeze, machine, "the folder was moved away")
    await world.vault.keeper.keep_all()
    world.clock.advance(days=2)
    await world.vault.keeper.keep_all()
    assert not world.db.read_now(forgotten)
    assert "point_purged" in events(world, tenant)


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (Totals(files=100, bytes=1 << 30), "files are gone"),
        (Totals(files=1000, bytes=1 << 20), "content is gone"),
        (
            Totals(
                files=1000, bytes=1 << 30, read_files=400, read_bytes=1 << 29, new_bytes=1 << 29
            ),
            "encrypted",
        ),
        # Much was read again, as after a lost memory, and all of it was known.
        (Totals(files=1000, bytes=1 << 30, read_files=1000, read_bytes=1 << 30), ""),
        # New and ordinary content shrinks.
        (
            Totals(
                files=1000, bytes=1 << 30, read_files=900, read_bytes=1 << 29, new_bytes=1 << 28
            ),
            "",
        ),
        (Totals(files=900, bytes=1 << 30), ""),
    ],
)
def test_what_looks_wrong_is_told_from_what_does_not(now: Totals, word: str) -> None:
    reasons = judge(now, [FULL])
    assert bool(reasons) == bool(word)
    assert word in "".join(reasons)


def test_files_that_go_bit_by_bit_are_seen() -> None:
    days = [
        Figures(f"rp_{n}", START + timedelta(days=n), Totals(files=1000 - 120 * n))
        for n in range(7)
    ]
    alarm = first_alarm(days, released_through=None)
    assert alarm is not None
    assert alarm.point == "rp_5"
    assert first_alarm(days, released_through=days[-1].received_at) is None


def test_files_that_are_encrypted_bit_by_bit_are_seen_until_somebody_has_looked() -> None:
    hours = [
        Figures(
            f"rp_{n}",
            START + timedelta(hours=n),
            Totals(files=1000, signs=Signs(changed=60, encrypted=10)),
        )
        for n in range(30)
    ]
    alarm = first_alarm(hours, released_through=None)
    assert alarm is not None
    assert alarm.point == "rp_9", "a tenth of all files, ten at a time"
    assert "100 files came to look encrypted within 7 days" in alarm.reasons[0]
    after = first_alarm(hours, released_through=alarm.received_at)
    assert after is not None
    assert after.point == "rp_19", "what was accepted does not count again"
    days = [replace(one, received_at=START + timedelta(days=n)) for n, one in enumerate(hours)]
    assert first_alarm(days, released_through=None) is None


def test_a_new_path_full_of_pictures_is_no_alarm() -> None:
    """The rules changed with it, so that the machine has nothing to compare with."""
    small = Totals(files=300, bytes=1 << 23)
    size = 1 << 30
    added = Totals(
        files=700,
        bytes=small.bytes + size,
        read_files=700,
        read_bytes=small.bytes + size,
        new_bytes=size,
    )
    assert judge(added, [small]) == ()
    # The same among the same rules, or of the same size, took the place of what there was.
    assert judge(added, [Totals(files=700, bytes=size)])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"daily": -1}', '{"daily": 1, "zone": "Moon/Sea"}', '{"dayly": 1}']
)
def test_rules_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        keeping.parse_rules(text)


async def test_what_fails_unexpectedly_of_one_tenants_vault_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await world.machine()
    made = [await back_up(world, who) for _ in range(3)]
    act(world, keeping.set_rules, who.identity.tenant, "", Rules(last=1, floor=1))
    world.clock.advance(days=3)
    keeper = world.vault.keeper
    kept = type(keeper)._keep

    async def failing(self: Any, tenant: str) -> None:
        if tenant != who.identity.tenant:
            raise OverflowError("date value out of range")
        await kept(self, tenant)

    monkeypatch.setattr(type(keeper), "_keep", failing)
    both = ["tn_" + "0" * 26, who.identity.tenant]
    monkeypatch.setattr("controller.vault.keeper._due", lambda *_, **__: both)
    await keeper.keep_all()
    assert listed(world) == {made[2][0]}
