"""Make a restore point, as an order or a schedule asks."""

from __future__ import annotations

import os
import random

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.backup.frugal import save_time_and_memory
from agent.backup.place import Memory
from agent.backup.run import Backup, BackupReport, Who
from agent.backup.send import GrpcVault
from agent.backup.skipped import shown
from agent.config import AgentHome
from agent.link.identity import load_identity
from agent.version import VERSION
from protocol.action import RunBackup
from protocol.errors import Code, SteadError
from protocol.outcome import OutcomeState
from protocol.vault.keys import VaultSecret, decode_vault_secret

_SHOWN = 200


def load_vault_secret(home: AgentHome) -> VaultSecret:
    """The tenant's vault secret; PRECONDITION when enrollment did not leave one."""
    try:
        return decode_vault_secret(home.vault_secret.read_bytes())
    except FileNotFoundError:
        raise SteadError(
            f"this machine has no vault secret: {home.vault_secret} is not there; enroll it "
            "again with `stead-agent enroll --force`",
            code=Code.PRECONDITION,
        ) from None


def execute(action: RunBackup, place: Workplace) -> ActionResult:
    """Back up the action's paths. PARTIAL when something that was asked for is missing.

    Raises what `Backup.run` raises.
    """
    credentials = load_identity(place.home)
    who = Who(
        tenant=place.tenant,
        machine=place.machine,
        secret=load_vault_secret(place.home),
        key=credentials.key,
        chain=credentials.chain,
        release=VERSION,
    )
    save_time_and_memory()
    with place.channel() as channel:
        report = Backup(
            action.paths,
            who=who,
            vault=GrpcVault(channel),
            memory=Memory(place.home.cache / "backup"),
            seed=random.Random(os.urandom(16)),  # noqa: S311 - spreads retries
            progress=place.progress,
        ).run()
    return result_of(report)


def result_of(report: BackupReport) -> ActionResult:
    """The report as an action's result."""
    counts, skipped = report.counts, report.skipped
    result = {
        "point": report.point,
        "received_at": report.received_at.isoformat(),
        "entries": report.root.entries,
        "files": report.root.files,
        "bytes": report.root.bytes,
        "read_files": counts.read_files,
        "read_bytes": counts.read_bytes,
        "reused_files": counts.reused_files,
        "changed_while_read": counts.changed_while_read,
        "new_chunks": report.new_chunks,
        "new_bytes": report.new_bytes,
        "sent_bytes": report.new_bytes,
        "lost_links": report.lost_links,
        "skipped": skipped.count,
        "skipped_paths": skipped.as_json()[:_SHOWN],
        "unsound": [shown(path) for path in report.unsound],
        "seconds": {phase: round(took, 3) for phase, took in report.seconds.items()},
    }
    encoded = msgspec.json.encode(result)
    if report.is_complete:
        return ActionResult(OutcomeState.SUCCEEDED, encoded, message=_sentence(report))
    why = []
    if skipped.missing:
        what = "one thing" if skipped.missing == 1 else f"{skipped.missing} things"
        why.append(f"{what} could not be read")
    if report.unsound:
        why.append(
            f"the vault does not give back {len(report.unsound)} of the files that were looked "
            f"at again, such as {shown(report.unsound[0])}: run `stead vault check --repair` on "
            "the controller, then back up again"
        )
    message = "; ".join([_sentence(report), *why])
    return ActionResult(OutcomeState.PARTIAL, encoded, message=message)


def _sentence(report: BackupReport) -> str:
    return (
        f"restore point {report.point}: {report.root.files} files, {report.root.bytes} bytes, "
        f"{report.new_bytes} bytes sent"
    )
