"""Which module executes which action. They are imported when they are needed."""

from __future__ import annotations

import sys
from importlib import import_module

from agent.actions.action import ActionResult, Workplace
from protocol.action import Action, name_of
from protocol.errors import Code, SteadError

MODULES = {
    "collect_inventory": "agent.actions.inventory",
    "take_snapshot": "agent.actions.snapshot",
    "scan_updates": "agent.actions.updates",
    "plan_updates": "agent.actions.updates",
    "apply_updates": "agent.actions.updates",
    "run_backup": "agent.actions.backup",
    "plan_backup": "agent.actions.plan_backup",
    "restore_files": "agent.actions.restore",
    "plan_restore": "agent.actions.restore",
    "compare_live": "agent.actions.compare",
    "run_drill": "agent.actions.drill",
    "list_services": "agent.actions.services",
    "control_service": "agent.actions.services",
    "list_processes": "agent.actions.processes",
    "kill_process": "agent.actions.processes",
    "read_log": "agent.actions.logs",
    "control_power": "agent.actions.power",
    "get_file": "agent.actions.files",
    "put_file": "agent.actions.files",
    "read_witness": "agent.actions.witness",
    "reset_witness": "agent.actions.witness",
}
"""Programs and backup sets are not here: they need no worker."""


LINUX_ALONE = frozenset(
    {
        "set_backup",
        "scan_updates",
        "plan_updates",
        "apply_updates",
        "run_backup",
        "plan_backup",
        "restore_files",
        "plan_restore",
        "compare_live",
        "run_drill",
        "get_file",
        "put_file",
    }
)
"""What is not written, or was never tried, for other systems; to say so is better than to fail
half way, or to make a restore point that nobody can restore."""


def refuse_elsewhere(name: str, system: str) -> None:
    """Raise UNSUPPORTED for an action that this system does not have yet."""
    if system != "linux" and name in LINUX_ALONE:
        where = {"win32": "Windows", "darwin": "macOS"}.get(system, system)
        raise SteadError(f"{name} does not run on {where} yet", code=Code.UNSUPPORTED)


def execute(action: Action, place: Workplace) -> ActionResult:
    """Execute an action in this process; raises `SteadError` when it could not be."""
    module = MODULES.get(name_of(action))
    if module is None:
        raise SteadError(f"{name_of(action)} is not executed by a worker", code=Code.UNKNOWN_ACTION)
    refuse_elsewhere(name_of(action), sys.platform)
    result = import_module(module).execute(action, place)
    assert isinstance(result, ActionResult)
    return result
