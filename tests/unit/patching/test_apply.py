"""Applying and judging, with the manager in memory."""

from __future__ import annotations

import msgspec
import pytest

from agent.patching.apply import apply_plan
from agent.patching.errors import RepositoryUnreachableError
from agent.patching.manager import Applied, RebootNeed
from agent.patching.section import updates_section
from agent.patching.update import Scan
from agent.patching.verify import judge
from tests.unit.patching.memory_manager import MemoryManager, Offer


@pytest.fixture
def manager() -> MemoryManager:
    made = MemoryManager(
        published={"alpha": Offer("2"), "beta": Offer("2", security=True)},
        installed={"alpha": "1", "beta": "1"},
    )
    made.refresh()
    return made


class BlindAfterwards(MemoryManager):
    """It can do everything but look at what it did."""

    blind = False

    def apply(self, plan):  # type: ignore[no-untyped-def]
        self.blind = True
        return super().apply(plan)

    def scan(self) -> Scan:
        if self.blind:
            raise RepositoryUnreachableError("the lists are gone")
        return super().scan()

    def reboot_needed(self) -> RebootNeed:
        raise RepositoryUnreachableError("no run folder")


def test_a_result_is_kept_when_nothing_can_be_seen_afterwards() -> None:
    manager = BlindAfterwards(published={"alpha": Offer("2")}, installed={"alpha": "1"})
    manager.refresh()
    result = apply_plan(manager, manager.plan(None))
    assert [step.name for step in result.applied] == ["alpha"]
    assert not result.succeeded
    assert result.reboot is None
    assert "the lists are gone" in result.unverified
    assert "no run folder" in result.unverified


def test_a_manager_that_only_claims_success_is_found_out(manager: MemoryManager) -> None:
    plan = manager.plan(None)
    claims = Applied(done=plan.steps, failed=(), kept_conffiles=(), problem="", log_tail="")
    result = judge(plan, claims, manager.scan(), manager.reboot_needed())
    assert result.still_missing == ("alpha", "beta")
    assert not result.succeeded


def test_results_are_encodable(manager: MemoryManager) -> None:
    result = apply_plan(manager, manager.plan(None))
    assert result.succeeded
    assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


def test_the_section_has_no_times_and_one_order(manager: MemoryManager) -> None:
    scan = manager.scan()
    later = msgspec.structs.replace(scan, updates=scan.updates[::-1], refreshed_at=None)
    facts = updates_section(scan)
    assert msgspec.json.encode(facts) == msgspec.json.encode(updates_section(later))
    assert (facts.security_count, facts.download_bytes) == (1, 2000)
