"""Look for updates, plan a transaction, and carry out exactly the one that was ordered."""

from __future__ import annotations

from typing import cast

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.actions.inventory import take_inventory
from agent.host import clock
from agent.inventory.section import Facts, Section, encode_facts
from agent.inventory.sources import Sources
from agent.link.report import report
from agent.patching.apply import apply_plan
from agent.patching.detect import detect_manager
from agent.patching.manager import PackageManager
from agent.patching.plan import PatchPlan, decode_plan, encode_plan
from agent.patching.section import NAME, SCHEMA, updates_section
from agent.patching.update import Scan
from protocol.action import ApplyUpdates, PlanUpdates, ScanUpdates
from protocol.errors import Code, SteadError
from protocol.outcome import OutcomeState


def execute(action: ScanUpdates | PlanUpdates | ApplyUpdates, place: Workplace) -> ActionResult:
    """Do what was ordered with the package manager of this machine."""

    def printed(data: bytes) -> None:
        place.progress({"printed": data.decode(errors="backslashreplace")})

    manager = detect_manager(on_output=printed)
    match action:
        case ScanUpdates():
            return _scan(action, manager, place)
        case PlanUpdates():
            return _plan(action, manager)
        case ApplyUpdates():
            return _apply(action, manager, place)


def _scan(action: ScanUpdates, manager: PackageManager, place: Workplace) -> ActionResult:
    if action.refresh:
        place.progress({"step": "refresh"})
        manager.refresh()
    place.progress({"step": "scan"})
    scan = manager.scan()
    with place.channel() as channel:
        reported = report(channel, place.home, {NAME: section_body(scan)}, at=clock.now())
    facts = updates_section(scan)
    result = {
        "inventory_root": reported.root.hex(),
        "updates": len(facts.updates),
        "security": facts.security_count,
        "held": len(facts.held),
        "refreshed_at": scan.refreshed_at,
    }
    return ActionResult(OutcomeState.SUCCEEDED, result=msgspec.json.encode(result))


def section_body(scan: Scan) -> bytes:
    """The inventory section `updates` of a scan."""

    def asked_otherwise(_: Sources) -> Facts:
        raise SteadError(f"{NAME} is a scan's result", code=Code.UNSUPPORTED)

    section = Section(NAME, SCHEMA, asked_otherwise)
    # The facts are a record of patching's own, which knows nothing of sections.
    return encode_facts(section, cast(Facts, updates_section(scan)))


def _plan(action: PlanUpdates, manager: PackageManager) -> ActionResult:
    # A plan that cannot be applied would read as "nothing to do" where much is to do.
    manager.check_health()
    return ActionResult(
        OutcomeState.SUCCEEDED, result=_plan_json(manager.plan(action.packages or None))
    )


def _plan_json(plan: PatchPlan) -> bytes:
    return msgspec.json.encode({"digest": plan.digest(), "plan": msgspec.Raw(encode_plan(plan))})


def _apply(action: ApplyUpdates, manager: PackageManager, place: Workplace) -> ActionResult:
    plan = decode_plan(action.plan)
    place.progress({"step": "apply", "packages": len(plan.steps)})
    result = apply_plan(manager, plan)
    said = msgspec.to_builtins(result)
    # From here on the machine has changed: nothing that follows may hide the result.
    try:
        taken = take_inventory(place, more={NAME: section_body(manager.scan())})
        said["inventory_root"] = taken.reported.root.hex()
    except SteadError as error:
        said["inventory_unreported"] = str(error)
    if result.succeeded:
        return ActionResult(OutcomeState.SUCCEEDED, result=msgspec.json.encode(said))
    state = OutcomeState.PARTIAL if result.applied else OutcomeState.FAILED
    return ActionResult(
        state,
        result=msgspec.json.encode(said),
        code=Code.PRECONDITION,
        message=result.problem or result.unverified or f"{len(result.failed)} packages failed",
    )
