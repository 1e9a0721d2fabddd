"""Fill in what an action leaves to the machine's backup set."""

from __future__ import annotations

from dataclasses import replace

from agent.config import AgentHome
from protocol.action import Action, PlanBackup, RunBackup, RunDrill
from protocol.errors import Code, SteadError
from protocol.selection import BY_DEFAULT


def by_set(action: Action, home: AgentHome) -> Action:
    """The action with what the backup set says where the action does not.

    The set is read as its standing order has it. What names its paths needs no set.
    """
    if not isinstance(action, RunBackup | RunDrill | PlanBackup):
        return action
    from agent.link.identity import load_identity
    from agent.tasks.believe import load_believed
    from agent.tasks.standing import verified_set

    believed = load_believed(home, load_identity(home))
    try:
        backup_set = verified_set(home, believed)
    except SteadError as error:
        if error.code is Code.NOT_FOUND and action not in (RunBackup(), PlanBackup()):
            return action
        raise
    if isinstance(action, RunDrill):
        return replace(action, canaries=action.canaries or backup_set.canaries)
    paths = action.paths or backup_set.paths
    rules = action.rules if action.paths or action.rules != BY_DEFAULT else backup_set.rules
    named = action.paths or action.commands.any
    commands = action.commands if named else backup_set.commands
    if isinstance(action, PlanBackup):
        return replace(action, paths=paths, rules=rules, commands=commands)
    return replace(
        action,
        paths=paths,
        rules=rules,
        seal_to_machine=action.seal_to_machine or backup_set.seal_to_machine,
        limit_upload=action.limit_upload or backup_set.limit_upload,
        commands=commands,
    )
