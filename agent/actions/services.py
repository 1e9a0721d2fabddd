"""List services, and start or stop one: the change that was ordered, and what became of it."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.inventory.chosen import section_of
from agent.inventory.section import inert
from agent.inventory.sections.services import Services
from agent.inventory.sources import Sources, sources_at
from agent.services.detect import detect_services
from agent.services.manager import ServiceManager, Status, check_order
from protocol.action import ControlService, ListServices
from protocol.errors import Code
from protocol.outcome import OutcomeState


def execute(action: ListServices | ControlService, place: Workplace) -> ActionResult:
    """Do what was ordered with the services of this machine."""
    if isinstance(action, ControlService):
        manager = detect_services()
        name = check_order(action.verb, action.name, manager.checked_name)
        place.progress({"step": f"{action.verb} {name}"})
        return control(manager, action.verb, name)
    if action.names:
        manager = detect_services()
        found = manager.show([manager.checked_name(name) for name in action.names])
        return _done({"services": found})
    return listed(sources_at())


def listed(sources: Sources) -> ActionResult:
    """Every service, as the inventory has them."""
    facts = section_of("services").collect(sources)
    assert isinstance(facts, Services)
    services = [
        {"name": one.name, "description": one.description, "state": one.state, "start": one.start}
        for one in facts.services
    ]
    # What the machine has may be no text.
    return _done({"source": facts.source, "services": inert(services)})


def control(manager: ServiceManager, verb: str, name: str) -> ActionResult:
    """Change a service and look whether it is now as it should be.

    Its manager may call a start good of what ends a moment later; we say what is.
    """
    [before] = manager.show([name])
    manager.act(verb, name)
    [after] = manager.show([name])
    result = {"name": name, "verb": verb, "before": before, "after": after}
    problem = problem_of(verb, after)
    if not problem:
        return _done(result)
    return ActionResult(
        OutcomeState.FAILED,
        result=msgspec.json.encode(result),
        code=Code.PRECONDITION,
        message=problem,
    )


def problem_of(verb: str, after: Status) -> str:
    """What is not as it should be after a change; empty when all is."""
    wrong = {
        "start": after.state in ("stopped", "failed"),
        "restart": after.state in ("stopped", "failed"),
        "stop": after.state == "running",
        "enable": after.start == "disabled",
        "disable": after.start in ("enabled", "automatic"),
    }
    if not wrong[verb]:
        return ""
    detail = f" ({after.detail})" if after.detail else ""
    return f"after {verb} {after.name} is {after.state}{detail} and {after.start}"


def _done(result: dict[str, Any]) -> ActionResult:
    return ActionResult(OutcomeState.SUCCEEDED, result=msgspec.json.encode(result))
