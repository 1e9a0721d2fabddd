"""Make a restore point, as an order or a schedule asks."""

from __future__ import annotations

import os
import random
from datetime import datetime

import grpc
import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.backup.backed_up import BackupReport
from agent.backup.cut.sealers import Sealers
from agent.backup.drill.perform import Proved, decode_sample
from agent.backup.frugal import save_time_and_memory
from agent.backup.run import Backup
from agent.backup.send.control import controlled
from agent.backup.send.own_points import report
from agent.backup.send.pace import checked_limit, lower
from agent.backup.send.wire import GrpcVault
from agent.backup.skipped import shown
from agent.backup.tree.place import Memory
from agent.backup.who import Who
from agent.config import AgentHome
from agent.host import clock
from agent.host.process import ProgramError, run
from agent.link.identity import load_identity, load_sealing
from agent.version import VERSION
from agent.watch.evidence import Handover, decode_handover, why_of
from protocol.action import RunBackup
from protocol.errors import Code, SteadError
from protocol.outcome import OutcomeState
from protocol.selection import Commands
from protocol.vault.keys import VaultSecret, decode_vault_secret

_SHOWN = 200
_RULES_SHOWN = 100


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
        own_key=load_sealing(place.home)[0] if action.seal_to_machine else None,
    )
    limit = lower(action.limit_upload, credentials.settings.limit_upload)
    if limit:
        checked_limit(limit)
    save_time_and_memory()
    seed = random.Random(os.urandom(16))  # noqa: S311 - spreads retries, and samples
    started_at = clock.now()
    # Before there is a channel: see `Sealers`.
    with (
        Sealers(who.secret, forked=hasattr(os, "fork")) as sealers,
        controlled(
            place.home,
            place.control,
            end=lambda by: place.leave(_cancelled(by)),
            say=lambda by: place.progress({"phase": "paused", "by": by}),
        ),
        place.channel() as channel,
    ):
        place.control.share(credentials.settings.cpu_limit, sealers.processes)
        vault = GrpcVault(channel)
        backup = Backup(
            action.paths,
            who=who,
            vault=vault,
            memory=Memory(place.home.cache / "backup"),
            seed=seed,
            progress=place.progress,
            sealers=sealers,
            handed=_handed(place),
            off=place.home.watch_off,
            rules=action.rules,
            limit_upload=limit,
            control=place.control,
            commands=action.commands,
        )
        if action.commands.before:
            _run_before(action.commands)
        done = backup.run()
        proved = _sample(done, who.secret, vault, channel, seed, started_at)
    return result_of(done, proved)


def _cancelled(by: str) -> ActionResult:
    return ActionResult(
        OutcomeState.CANCELLED,
        message=f"cancelled on the machine by {by}; no restore point was made, and the next "
        "backup sends only what is missing",
    )


def _run_before(commands: Commands) -> None:
    try:
        run(*commands.before, timeout=commands.limit_s).checked()
    except ProgramError as error:
        # Never TIMED_OUT: that is said of whole tasks.
        raise SteadError(
            f"there is no backup, because the command before it failed: {error}",
            code=Code.PRECONDITION,
        ) from error


def _handed(place: Workplace) -> Handover | None:
    """What was watched for this very task; None when nothing was, or it cannot be read."""
    try:
        data = None if place.handed is None else place.handed.read_bytes()
    except OSError:
        return None
    return None if data is None else decode_handover(data, place.task)


def _sample(
    done: BackupReport,
    secret: VaultSecret,
    vault: GrpcVault,
    channel: grpc.Channel,
    seed: random.Random,
    started_at: datetime,
) -> Proved | None:
    """Decode a few files of what was just made, and report it; None where that failed.

    The restore point exists by now, so a controller that goes away meanwhile is no failure.
    """
    try:
        proved = decode_sample(done.root, vault=vault, secret=secret, seed=seed, patience_s=0)
        report(
            channel,
            seed,
            drill=clock.new_id("dr"),
            point=done.point,
            kind="sample",
            state="wrong" if proved.wrong or done.missed else "good",
            started_at=started_at,
            took_ms=int(proved.took_s * 1000),
            files=proved.files,
            size=proved.size,
            compared=proved.compared,
            wrong=len(proved.wrong) + len(done.missed),
            message=_words_of_missed(done),
            details=msgspec.json.encode(proved.as_json()),
            patience_s=0,
        )
    except SteadError:
        return None
    return proved


def result_of(made: BackupReport, proved: Proved | None = None) -> ActionResult:
    """The report as an action's result, with what a sample of it has shown."""
    counts, skipped = made.counts, made.skipped
    result = {
        "point": made.point,
        "detector": made.detector,
        "why": why_of(made.detector),
        "missed": [shown(path) for path in made.missed],
        "received_at": made.received_at.isoformat(),
        "entries": made.root.entries,
        "files": made.root.files,
        "bytes": made.root.bytes,
        "stream_bytes": made.stream_bytes,
        "read_files": counts.read_files,
        "read_bytes": counts.read_bytes,
        "reused_files": counts.reused_files,
        "changed_while_read": counts.changed_while_read,
        "new_chunks": made.new_chunks,
        "new_bytes": made.new_bytes,
        "sent_bytes": made.new_bytes,
        "lost_links": made.lost_links,
        "skipped": skipped.count,
        "skipped_paths": skipped.as_json()[:_SHOWN],
        "left_out": made.left_out[:_RULES_SHOWN],
        "decoded": None
        if proved is None
        else {"files": proved.files, "bytes": proved.size, "wrong": proved.as_json()},
        "unsound": [shown(path) for path in made.unsound],
        "seconds": {phase: round(took, 3) for phase, took in made.seconds.items()},
    }
    encoded = msgspec.json.encode(result)
    wrong = proved.wrong if proved is not None else []
    if made.is_complete and not wrong and not made.missed:
        return ActionResult(OutcomeState.SUCCEEDED, encoded, message=_sentence(made))
    why = []
    if skipped.missing:
        what = "one thing" if skipped.missing == 1 else f"{skipped.missing} things"
        why.append(f"{what} could not be read")
    if made.missed:
        why.append(_words_of_missed(made))
    if made.unsound:
        why.append(
            f"the vault does not give back {len(made.unsound)} of the files that were looked "
            f"at again, such as {shown(made.unsound[0])}: run `stead vault scrub --now`, "
            "then back up again"
        )
    if wrong:
        path, reason = wrong[0]
        why.append(
            f"of the files that were decoded again {len(wrong)} are wrong, such as "
            f"{shown(path)}: {reason}; run `stead vault scrub --now`, then back up again"
        )
    message = "; ".join([_sentence(made), *why])
    return ActionResult(OutcomeState.PARTIAL, encoded, message=message)


def _words_of_missed(made: BackupReport) -> str:
    if not made.missed:
        return ""
    return (
        f"{shown(made.missed[0])} had changed and no event had told it: its file system is "
        "watched no longer, and every run walks it; order the backup set again to have it "
        "tried once more"
    )


def _sentence(report: BackupReport) -> str:
    said = (
        f"restore point {report.point}: {report.root.files} files, {report.root.bytes} bytes, "
        f"{report.new_bytes} bytes sent"
    )
    if report.unremembered:
        said += (
            "; the next one reads everything, since the agent's cache could not be written: "
            + report.unremembered
        )
    return said
