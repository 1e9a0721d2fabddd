"""Say who this machine is and how its agent is doing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509

from agent.backup.send.control import read_wish
from agent.config import AgentHome
from agent.diagnosis.own_orders import standing_orders
from agent.host import clock
from agent.host.lock import holder_of
from agent.link.former import former_identities
from agent.link.identity import Credentials, load_identity
from agent.link.stay import LinkState
from agent.presence import Status, is_stale, load_status
from agent.tasks.damage import find_damage
from agent.tasks.policy import load_policy
from agent.tasks.revoked import load_revocations
from agent.tasks.standing import last_drill, load_set, next_run
from agent.tasks.under_way import under_way
from agent.witness.keep import load_watched, render_alarm
from protocol.checkpoint import render_log
from protocol.errors import InvalidError, SteadError


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say, and the exit code that says it to scripts."""

    fields: dict[str, Any]
    exit_code: int


def describe(home: AgentHome) -> Told:
    """Read everything; raises PRECONDITION when the machine is not enrolled."""
    known = load_identity(home)
    process = holder_of(home.lock)
    last = load_status(home) if process is not None else None
    link, reason = _link(last, process)
    damage = find_damage(home.journal)
    kept = load_set(home)
    fields: dict[str, Any] = {
        "machine": known.identity.machine,
        "tenant": known.identity.tenant,
        "controller": known.settings.link_address,
        "former_identities": [one.machine for one in former_identities(home)],
        "proxy": _proxy(known),
        "certificate_until": known.leaf.not_valid_after_utc,
        "agent_process": process,
        "link": link,
        "link_since": last.since if last else None,
        "link_reason": reason,
        "link_code": last.code if last else "",
        "next_attempt_at": last.again_at if last else None,
        "last_heartbeat_at": last.last_heartbeat_at if last else None,
        "clock_ahead_s": last.clock_ahead_s if last else None,
        "running_tasks": list(last.running) if last else [],
        "agent_version": _version(last),
        "runs": [msgspec.to_builtins(one, builtin_types=(datetime,)) for one in under_way(home)],
        "paused_by": _paused_by(home),
        "journal": str(damage) if damage else (last.journal if last else "ok"),
        "backup_schedule": kept.schedule or "on order" if kept else "no backup set",
        "next_backup_at": next_run(home, known.identity.machine, now=clock.now()),
        **_drill(home),
        "standing_orders": standing_orders(home, known),
        "denied": list(known.settings.deny),
        "read_only": known.settings.read_only,
        **_revocations(home, known.root, last),
        **_policy(home, known, last),
        **_witness(home),
    }
    if last is None:
        return Told(fields, 1)
    return Told(fields, 0 if link == LinkState.CONNECTED else 6)


def _proxy(known: Credentials) -> str:
    """The proxy on the way to the controller, without its password; empty for none."""
    try:
        return str(known.settings.proxy_for(known.settings.link_address) or "")
    except SteadError as error:
        return str(error)


def _revocations(home: AgentHome, root: x509.Certificate, last: Status | None) -> dict[str, Any]:
    """Which list of revoked operators this machine keeps, and how old it is."""
    refused = last.list_refused if last else ""
    try:
        kept = load_revocations(home, root)
    except SteadError as error:
        return {"revocations": str(error), "revocations_issued_at": None, "list_refused": refused}
    return {
        "revocations": f"version {kept.version}" if kept.version else "none was given",
        "revocations_issued_at": kept.issued_at if kept.version else None,
        "list_refused": refused,
    }


def _policy(home: AgentHome, known: Credentials, last: Status | None) -> dict[str, Any]:
    """Which policy of its tenant this machine judges orders by."""
    refused = last.policy_refused if last else ""
    try:
        kept = load_policy(home, known.root, known.identity.tenant)
    except SteadError as error:
        return {"policy": str(error), "policy_issued_at": None, "policy_refused": refused}
    return {
        "policy": f"version {kept.version}" if kept.version else "none was given",
        "policy_issued_at": kept.issued_at if kept.version else None,
        "policy_refused": refused,
    }


def _witness(home: AgentHome) -> dict[str, Any]:
    """Which audit logs this machine watches, and what it found wrong with them."""
    try:
        watched = load_watched(home)
    except SteadError as error:
        return {"audit_watched": [], "audit_alarms": [str(error)]}
    return {
        "audit_watched": [
            f"{render_log(log)}: {one.size} entries at {one.at:%Y-%m-%d %H:%M:%S}Z"
            for log, one in watched.checkpoints().items()
        ],
        "audit_alarms": [render_alarm(log, alarm) for log, alarm in watched.each_alarm()],
    }


def _paused_by(home: AgentHome) -> str:
    """Who paused backups and restores; empty when nobody did."""
    try:
        return read_wish(home).paused_by
    except InvalidError as error:
        return f"nobody: {error}"


def _drill(home: AgentHome) -> dict[str, Any]:
    """When the last drill by itself was, and how it ended."""
    drill = last_drill(home)
    return {
        "last_drill_at": drill.at if drill else None,
        "last_drill": f"{drill.state}: {drill.reason}" if drill else "none by itself yet",
    }


def _version(last: Status | None) -> str:
    """Of which release the running agent is."""
    if last is None:
        return ""
    if last.replaced:
        return f"{last.version}; its files were replaced: it begins anew when nothing runs any more"
    return last.version


def _link(last: Status | None, process: int | None) -> tuple[str, str]:
    """How the link is, and why."""
    if last is None:
        return "none", "no agent is running; start it"
    if is_stale(last, clock.now()):
        return "silent", f"the agent is there and does nothing; look at process {process}"
    return last.link, last.reason
