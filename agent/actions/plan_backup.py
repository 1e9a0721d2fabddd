"""Say what a backup would take, as an order asks."""

from __future__ import annotations

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.actions.obeying import obeying
from agent.backup.plan import Amount, plan_backup
from agent.backup.tree.place import Memory
from agent.host import clock
from protocol.action import PlanBackup
from protocol.outcome import OutcomeState

_PROGRESS_S = 0.3


def execute(action: PlanBackup, place: Workplace) -> ActionResult:
    """Walk the action's paths. PARTIAL when something could not be looked at."""
    told = 0.0

    def tick(seen: Amount) -> None:
        nonlocal told
        place.control.hold(lambda: None)
        now = clock.monotonic()
        if now >= told:
            told = now + _PROGRESS_S
            place.progress({"phase": "walk", "files": seen.files, "bytes": seen.size})

    own = bytes(Memory(place.home.cache / "backup").path.resolve()).lstrip(b"/")
    with obeying(place, "it has changed nothing"):
        plan = plan_backup(
            action.paths,
            action.rules,
            now_ns=clock.wall_ns(),
            own=frozenset([own]),
            tick=tick,
            commands=action.commands,
        )
    missing = plan.skipped.missing
    state = OutcomeState.PARTIAL if missing else OutcomeState.SUCCEEDED
    message = f"{missing} things could not be looked at" if missing else ""
    return ActionResult(state, msgspec.json.encode(plan.as_json()), message=message)
