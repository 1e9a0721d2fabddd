"""Laws of the ratchet: no accident looks like a copy, and no copy goes unnoticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.authority.ratchet import (
    ACCEPTED,
    Kept,
    Shown,
    Verdict,
    acknowledged,
    judge,
)

HARDWARE = st.sampled_from([b"", b"h" * 32])


class OneMachine(RuleBasedStateMachine):
    """One holder, whose Hello, Welcome or acknowledgement may be lost, and who may crash.

    The controller's database may be put back too, together with nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept()
        self.durable = 0
        self.hardware = b"h" * 32
        self.backup: Kept | None = None
        self.snapshot: int | None = None
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.told = Verdict.CURRENT

    def hello(self, *, linked: bool) -> int:
        self.told, self.kept = judge(
            self.kept, Shown(self.durable, self.hardware), linked=linked, now=self.now
        )
        return self.kept.generation + 1

    @rule(reached=st.integers(0, 3), linked=st.booleans(), wait=st.integers(0, 7200))
    def connect(self, reached: int, linked: bool, wait: int) -> None:
        """Hello arrives; Welcome arrives; its token is durable; it is acknowledged: up to
        `reached` of these, then the connection or the agent dies."""
        self.now += timedelta(seconds=wait)
        if reached == 0:
            return
        token = self.hello(linked=linked)
        if self.told in ACCEPTED and reached >= 2:
            self.durable = token
            if reached >= 3:
                self.kept = acknowledged(self.kept, Shown(token, self.hardware))

    @rule()
    def back_up_the_database(self) -> None:
        self.backup = self.kept

    @precondition(lambda self: self.backup is not None)
    @rule()
    def put_the_database_back(self) -> None:
        assert self.backup is not None
        self.kept = self.backup

    @rule()
    def move_to_other_hardware(self) -> None:
        self.hardware = bytes(31) + bytes([self.hardware[-1] + 1 & 0xFF])

    @invariant()
    def it_is_never_taken_for_a_copy(self) -> None:
        assert self.told in ACCEPTED


class SnapshotsOfOneMachine(OneMachine):
    """The same one, which is put back to an earlier state between its connections."""

    @rule()
    def take_a_snapshot(self) -> None:
        self.snapshot = self.durable

    @precondition(lambda self: self.snapshot is not None and self.backup is None)
    @rule()
    def return_to_the_snapshot(self) -> None:
        assert self.snapshot is not None
        assume(self.hardware == b"h" * 32)
        self.durable = self.snapshot

    # What it moved to, or what the database forgot, is another matter: see the unit tests.
    move_to_other_hardware = None  # type: ignore[assignment]
    back_up_the_database = None  # type: ignore[assignment]
    put_the_database_back = None  # type: ignore[assignment]

    def hello(self, *, linked: bool) -> int:
        return super().hello(linked=False)


class TwoHolders(RuleBasedStateMachine):
    """A copy is made, and both connect whole, in any order, whatever they say of hardware."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = acknowledged(Kept(), Shown(1, b"h" * 32))
        self.durable = [1, 1]
        self.whole = [0, 0]
        self.noticed = False

    @rule(who=st.integers(0, 1), hardware=HARDWARE, acknowledges=st.booleans())
    def connect(self, who: int, hardware: bytes, acknowledges: bool) -> None:
        verdict, self.kept = judge(
            self.kept,
            Shown(self.durable[who], hardware),
            linked=False,
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )
        if verdict is not Verdict.CURRENT:
            self.noticed = True
            return
        token = self.kept.generation + 1
        self.durable[who] = token
        if acknowledges:
            self.kept = acknowledged(self.kept, Shown(token, hardware))
            self.whole[who] += 1

    @invariant()
    def two_whole_connections_each_are_enough(self) -> None:
        assert self.noticed or min(self.whole) < 2


FEW = settings(max_examples=60, stateful_step_count=30)
TestOneMachine = OneMachine.TestCase
TestSnapshotsOfOneMachine = SnapshotsOfOneMachine.TestCase
TestTwoHolders = TwoHolders.TestCase
for case in (TestOneMachine, TestSnapshotsOfOneMachine, TestTwoHolders):
    case.settings = FEW
