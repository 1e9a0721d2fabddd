"""Judge an applied plan by a scan made after it.

Pure. What the package manager claims counts as little as its exit code: a step has
succeeded when the package is there in the planned version and the new scan no longer
offers that version.
"""

from __future__ import annotations

import msgspec

from agent.patching.manager import Applied, FailedStep, RebootNeed
from agent.patching.plan import PatchPlan, Step
from agent.patching.update import Scan


class PatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an applied plan came to.

    `still_missing` are names whose planned version the scan afterwards still offers.
    `unverified` is what could not be looked at afterwards and why, empty when all was;
    `reboot` is `None` when that is among it.
    """

    plan_digest: str
    applied: tuple[Step, ...]
    failed: tuple[FailedStep, ...]
    still_missing: tuple[str, ...]
    kept_conffiles: tuple[str, ...]
    reboot: RebootNeed | None
    problem: str
    unverified: str
    log_tail: str

    @property
    def succeeded(self) -> bool:
        """Every step was done and a scan afterwards agrees."""
        return not (self.failed or self.still_missing or self.problem or self.unverified)


def judge(
    plan: PatchPlan,
    applied: Applied,
    after: Scan | None,
    reboot: RebootNeed | None,
    unverified: str = "",
) -> PatchResult:
    """Compare what was planned with what was done and with what is on offer afterwards."""
    offered = set()
    if after is not None:
        offered = {(update.name, update.candidate) for update in after.updates}
        offered |= {
            (held.name, held.candidate) for held in after.held if held.candidate != held.installed
        }
    missing = {step.name for step in plan.steps if step.new and (step.name, step.new) in offered}
    return PatchResult(
        plan_digest=plan.digest(),
        applied=applied.done,
        failed=applied.failed,
        still_missing=tuple(sorted(missing)),
        kept_conffiles=applied.kept_conffiles,
        reboot=reboot,
        problem=applied.problem,
        unverified=unverified,
        log_tail=applied.log_tail,
    )
