"""How much an action can do, which decides who may order it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from protocol.action import Action, ReadLog, name_of
from protocol.selection import NO_COMMANDS


class ActionClass(StrEnum):
    """How much an action can do, from least to most."""

    OBSERVE = "observe"
    """Looks, by ways of the agent's own, and tells nothing that inventory might not."""
    ROUTINE = "routine"
    """What is done every day, within bounds that the action itself sets."""
    DANGEROUS = "dangerous"
    """Can do anything to the machine, or overwrites what is there."""


CLASSES: Mapping[str, ActionClass] = {
    "collect_inventory": ActionClass.OBSERVE,
    "take_snapshot": ActionClass.OBSERVE,
    "scan_updates": ActionClass.OBSERVE,
    "plan_updates": ActionClass.OBSERVE,
    "list_services": ActionClass.OBSERVE,
    "list_processes": ActionClass.OBSERVE,
    "read_witness": ActionClass.OBSERVE,
    "read_log": ActionClass.ROUTINE,
    "apply_updates": ActionClass.ROUTINE,
    "set_backup": ActionClass.ROUTINE,
    "run_backup": ActionClass.ROUTINE,
    "plan_backup": ActionClass.ROUTINE,
    "plan_restore": ActionClass.ROUTINE,
    "compare_live": ActionClass.ROUTINE,
    "run_drill": ActionClass.ROUTINE,
    "cancel_order": ActionClass.ROUTINE,
    "revoke_standing": ActionClass.ROUTINE,
    "control_service": ActionClass.ROUTINE,
    "kill_process": ActionClass.ROUTINE,
    "control_power": ActionClass.DANGEROUS,
    "reset_witness": ActionClass.DANGEROUS,
    "restore_files": ActionClass.DANGEROUS,
    "run_program": ActionClass.DANGEROUS,
    "run_script": ActionClass.DANGEROUS,
    "change_vault_secret": ActionClass.DANGEROUS,
    "rehome": ActionClass.DANGEROUS,
    # What it reads may be any secret of the machine.
    "get_file": ActionClass.DANGEROUS,
    "put_file": ActionClass.DANGEROUS,
}
"""Of every action; one whose order names programs to run, or a file beyond `LOGS` to show as
a log, is dangerous besides."""

LOGS = "/var/log/"
"""Where logs are. Any other file that is shown may be any secret of the machine."""


def class_of(action: Action) -> ActionClass:
    """What an action counts as; see `CLASSES`."""
    if getattr(action, "commands", NO_COMMANDS).any or is_any_file(action):
        return ActionClass.DANGEROUS
    return CLASSES[name_of(action)]


def is_any_file(action: Action) -> bool:
    """Whether an action shows a file, as a log, that is none by its place.

    >>> is_any_file(ReadLog(file="/var/log/web.log")), is_any_file(ReadLog(unit="web"))
    (False, False)
    >>> is_any_file(ReadLog(file="/etc/shadow")), is_any_file(ReadLog(file="/var/log/../x"))
    (True, True)
    """
    if not isinstance(action, ReadLog) or not action.file:
        return False
    return not action.file.startswith(LOGS) or ".." in action.file.split("/")
