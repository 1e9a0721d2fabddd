"""An action in a few words, for listings and the audit log. Pure."""

from __future__ import annotations

import hashlib

from protocol.action import (
    Action,
    CancelOrder,
    CompareLive,
    ControlPower,
    ControlService,
    GetFile,
    KillProcess,
    PlanBackup,
    PutFile,
    ReadLog,
    ReadWitness,
    Rehome,
    ResetWitness,
    RestoreFiles,
    RevokeStanding,
    RunBackup,
    RunProgram,
    RunScript,
    SetBackup,
    name_of,
)


def summary_of(action: Action) -> str:
    """The action in a few words, for listings."""
    match action:
        case RunProgram(argv=argv):
            return "run " + " ".join(argv)[:200]
        case RunScript():
            # By its hash too: the name is only what somebody called it.
            digest = hashlib.sha256(action.body).hexdigest()[:16]
            said = " ".join(filter(None, (action.name, digest, *action.arguments)))
            return f"run {action.shell[:20]} script {said[:200]}"
        case SetBackup(paths=paths) | RunBackup(paths=paths) | PlanBackup(paths=paths) if paths:
            shown = b" ".join(paths).decode(errors="backslashreplace")
            return f"{name_of(action).replace('_', ' ')} {shown[:200]}{_programs_of(action)}"
        case SetBackup() | RunBackup():
            return name_of(action).replace("_", " ") + _programs_of(action)
        case RestoreFiles(path=path, target=target, parts=parts):
            more = b" and %d more" % len(parts) if parts else b""
            words = b"/" + path.lstrip(b"/") + more + b" to " + target
            shown = words.decode(errors="backslashreplace")[:200]
            verb = "restore" if type(action) is RestoreFiles else "plan to restore"
            extra = ", removing what is not in it" if action.delete_extra else ""
            return f"{verb} {shown}{extra}"
        case ReadLog(unit=unit, file=file):
            return f"show the log {file or unit or 'of the system'}"[:200]
        case ControlPower(verb=verb, delay_s=delay):
            return f"{verb[:20]} in {delay} s"
        case ControlService(name=name, verb=verb):
            return f"{verb} service {name}"[:200]
        case KillProcess(pid=pid, signal=signal):
            return f"send {signal[:20]} to process {pid}"
        case Rehome(link_address=address):
            return f"move to the controller at {address}"[:200]
        case GetFile(path=path):
            return f"get {path.decode(errors='backslashreplace')[:200]}"
        case PutFile(path=path, size=size, content_hash=digest):
            shown = path.decode(errors="backslashreplace")
            return f"put {size} bytes, {digest.hex()[:16]}, to {shown[:200]}"
        case CompareLive(path=path):
            shown = (b"/" + path).decode(errors="backslashreplace")
            return f"compare {shown[:200]} with a restore point"
        case CancelOrder(order_id=order):
            return f"cancel order {order[:200]}"
        case RevokeStanding(order_id=order):
            return f"revoke standing order {order[:200]}"
        case ReadWitness():
            return "read the checkpoints of the audit logs"
        case ResetWitness():
            return "forget the checkpoints of the audit logs"
        case _:
            return name_of(action).replace("_", " ")


def _programs_of(action: SetBackup | RunBackup | PlanBackup) -> str:
    """The programs that a backup runs, so that nobody has to open an order to see them."""
    if isinstance(action, PlanBackup) or not action.commands.any:
        return ""
    commands = action.commands
    argvs = (commands.before, *(one.argv for one in commands.streams), commands.after)
    return ", runs " + "; ".join(" ".join(argv) for argv in argvs if argv)[:200]
