"""Laws of what calls beside the link show: the machine is never refused, a copy is before long."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.authority.holding import BEHIND, Holding
from controller.authority.ratchet import ACCEPTED, Kept, Shown, acknowledged, judge, token_of
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId

KEY, HARDWARE = b"k" * 32, b"h" * 32
NOW = datetime(2026, 5, 1, tzinfo=UTC)
MACHINE = MachineIdentity(TenantId("tn_" + "0" * 26), MachineId("mc_" + "0" * 26))
STEPS = st.sampled_from(["lost", "crash", "unheard", "whole"])
"""How far a connection comes: Hello alone, Welcome, a durable token, its acknowledgement."""


class World:
    """One machine, its controller's database and what the controller remembers of it."""

    def __init__(self) -> None:
        self.kept, self.disk = Kept(), 0
        self.restart()

    def restart(self) -> None:
        """The controller starts again."""
        self.holding = Holding()
        self.holding.load(KEY, {MACHINE.machine: self.kept.generation})

    def connect(self, step: str) -> None:
        verdict, self.kept = judge(self.kept, Shown(self.disk, HARDWARE), linked=False, now=NOW)
        assert verdict in ACCEPTED
        self.holding.moved_on(MACHINE.machine, self.kept.generation)
        handed = self.kept.generation + 1
        if step in {"unheard", "whole"}:
            self.disk = handed
        if step == "whole":
            self.kept = acknowledged(self.kept, Shown(handed, HARDWARE))
            self.holding.moved_on(MACHINE.machine, self.kept.generation)

    def token(self) -> bytes:
        """What a call shows that is made now."""
        return token_of(KEY, MACHINE.machine, self.disk) if self.disk else b""

    def refused(self, token: bytes) -> Code | None:
        try:
            self.holding.check(MACHINE, token)
        except SteadError as error:
            return error.code
        return None


@given(st.lists(STEPS, max_size=30), st.data())
def test_no_call_of_the_machine_is_refused_however_its_links_end(
    steps: list[str], data: st.DataObject
) -> None:
    world = World()
    for step in steps:
        under_way = world.token()
        world.connect(step)
        if data.draw(st.booleans()):
            world.restart()
        # One that was made before and arrives now, and one that is made now.
        if under_way or not world.kept.generation:
            assert world.refused(under_way) is None
        assert world.refused(world.token()) is None


@given(st.lists(STEPS, max_size=10), st.lists(STEPS, max_size=10))
def test_a_copy_is_refused_once_the_machine_has_connected_whole_twice(
    before: list[str], after: list[str]
) -> None:
    world = World()
    for step in before:
        world.connect(step)
    copied = world.token()
    for step in [*after, *["whole"] * (BEHIND + 1)]:
        world.connect(step)
    assert world.refused(copied) in {Code.CLONE, Code.UPGRADE_REQUIRED}
    assert world.refused(world.token()) is None


@pytest.mark.parametrize("token", [bytes(24), b"x", bytes(64), bytes(65), b"\xff" * 24])
def test_what_no_controller_gave_out_is_refused(token: bytes) -> None:
    world = World()
    world.connect("whole")
    assert world.refused(token) is Code.CLONE
