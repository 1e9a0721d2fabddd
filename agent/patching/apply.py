"""Apply an ordered plan: only if it is still what would happen, and judged afterwards."""

from __future__ import annotations

from agent.patching.errors import PlanChangedError
from agent.patching.manager import PackageManager
from agent.patching.plan import PatchPlan, find_differences
from agent.patching.verify import PatchResult, judge
from protocol.errors import SteadError


def apply_plan(manager: PackageManager, expected: PatchPlan) -> PatchResult:
    """Carry out `expected` after simulating its request again, then scan again.

    Raises `PlanChangedError`, naming each difference, when the transaction is not the
    ordered one any more, and whatever `PackageManager.apply` raises; in both cases
    nothing was changed. It does not refresh: an order names a transaction by the
    lists that the operator saw.
    """
    manager.check_health()
    current = manager.plan(expected.requested, removals=expected.removals)
    differences = find_differences(expected, current)
    if differences:
        raise PlanChangedError(differences)
    applied = manager.apply(expected)
    # From here on the machine has changed: whatever goes wrong must not lose the result.
    unverified = []
    after = reboot = None
    try:
        after = manager.scan()
    except SteadError as error:
        unverified.append(f"no scan afterwards: {error}")
    try:
        reboot = manager.reboot_needed()
    except SteadError as error:
        unverified.append(f"need of a restart not known: {error}")
    return judge(expected, applied, after, reboot, "; ".join(unverified))
