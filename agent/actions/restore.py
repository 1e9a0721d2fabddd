"""Write a part of a restore point into a directory of this machine."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.actions.action import ActionResult, Workplace
from agent.actions.backup import load_vault_secret
from agent.backup.belonging import owners_of
from agent.backup.durable import Written
from agent.backup.frugal import save_time_and_memory
from agent.backup.placer import Done, TargetFullError
from agent.backup.preview import Preview
from agent.backup.restore import Restore
from agent.backup.send import GrpcVault
from agent.backup.skipped import reason_of, shown
from agent.config import AgentHome
from agent.host import clock
from protocol.action import PlanRestore, RestoreFiles
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.outcome import OutcomeState
from protocol.vault.grant import Grant, open_grant
from protocol.vault.keys import VaultSecret

_SHOWN = 200
_PATIENCE_S = 600.0


def execute(action: RestoreFiles, place: Workplace) -> ActionResult:
    """Restore what the order's grants name. PARTIAL when some of it could not be.

    The subtree at `path` arrives in `target` under its own last name. Each sealed
    reference is a grant, bound to this tenant, machine and restore point. Raises `SealedError`
    when one was meant for another, PRECONDITION when this machine has no keys, and
    `InvalidError` for a target that cannot be used.
    """
    save_time_and_memory()
    owners = owners_of(action.owners)
    is_plan = isinstance(action, PlanRestore)
    preview = Preview()
    target = _planned_target(action.target) if is_plan else _target(action.target)
    strip = action.path.strip(b"/").rpartition(b"/")[0]
    began = clock.monotonic()
    total = Done()
    fetched = 0
    full: TargetFullError | None = None
    with place.channel() as channel, Written() as written:
        vault = GrpcVault(channel)
        for grant, secret in grants_of(action.point_id, action.sealed_references, place):
            restore = Restore(
                grant.spans,
                strip=strip,
                target=target,
                overwrite=action.overwrite,
                vault=vault,
                secret=secret,
                seed=random.Random(os.urandom(16)),  # noqa: S311 - spreads retries
                progress=place.progress,
                patience_s=_PATIENCE_S,
                owners=owners,
                flags=action.flags,
                verify=action.verify,
                written=written,
            )
            try:
                if is_plan:
                    preview.join(restore.preview())
                else:
                    restore.run()
            except TargetFullError as error:
                full = error
            _add(total, restore.done)
            fetched += restore.fetched_bytes
            if full is not None:
                break
        if not is_plan and full is None:
            place.progress({"phase": "sync", "files": total.files, "bytes": total.bytes})
            written.make_durable()
    if is_plan:
        return _plan_result(preview, total)
    return _result(total, fetched, clock.monotonic() - began, full)


def _target(path: bytes) -> bytes:
    if not path.startswith(b"/") or b"\0" in path:
        raise InvalidError("the directory to restore into has to be an absolute path")
    try:
        Path(os.fsdecode(path)).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidError(
            f"{shown(path[:200])} cannot be restored into: {reason_of(error)}; "
            "name another directory"
        ) from error
    return path


def _planned_target(path: bytes) -> bytes:
    """The directory to look into; NOT_FOUND when a restore would have to make it."""
    if not path.startswith(b"/") or b"\0" in path:
        raise InvalidError("the directory to restore into has to be an absolute path")
    if not Path(os.fsdecode(path)).is_dir():
        raise NotFoundError(f"{shown(path[:200])} is not there yet: all of it would be created")
    return path


def sealing_key_of(home: AgentHome) -> X25519PrivateKey:
    """What orders are sealed to; PRECONDITION when enrollment did not leave one."""
    try:
        return X25519PrivateKey.from_private_bytes(home.sealing_key.read_bytes())
    except (OSError, ValueError) as error:
        raise SteadError(
            f"this machine has no key for restores: {home.sealing_key}: {error}; enroll "
            "it again with `stead-agent enroll --force`",
            code=Code.PRECONDITION,
        ) from error


def grants_of(
    point: str, sealed_references: Sequence[bytes], place: Workplace
) -> Iterator[tuple[Grant, VaultSecret]]:
    """What an order gives the right to read, each with the secret it was made with."""
    own = load_vault_secret(place.home)
    key = sealing_key_of(place.home)
    if not sealed_references:
        raise InvalidError("the order carries no reference; sign it again")
    names = {"tenant": place.tenant, "machine": place.machine, "point": point}
    for sealed in sealed_references:
        grant = open_grant(key, sealed, **names)
        other = grant.convergence
        yield grant, VaultSecret(other, own.recovery_public) if other else own


def _add(total: Done, done: Done) -> None:
    total.files += done.files
    total.bytes += done.bytes
    total.others += done.others
    total.same += done.same
    for into, listed in ((total.failed, done.failed), (total.warnings, done.warnings)):
        into.kept += listed.kept[: max(0, _SHOWN - len(into.kept))]
        into.count += listed.count
        into.missing += listed.missing


def _result(done: Done, fetched: int, seconds: float, full: TargetFullError | None) -> ActionResult:
    encoded = msgspec.json.encode(
        {
            "files": done.files,
            "bytes": done.bytes,
            "others": done.others,
            "same": done.same,
            "fetched_bytes": fetched,
            "seconds": round(seconds, 3),
            "left": done.failed.count,
            "failed": done.failed.as_json()[:_SHOWN],
            "warned": done.warnings.count,
            "warnings": done.warnings.as_json()[:_SHOWN],
        }
    )
    said = f"{done.files} files, {done.bytes} bytes restored, {done.same} were the same already"
    if full is not None:
        return ActionResult(OutcomeState.FAILED, encoded, full.code, str(full))
    if done.failed.count:
        left = (
            "1 thing was not" if done.failed.count == 1 else f"{done.failed.count} things were not"
        )
        return ActionResult(OutcomeState.PARTIAL, encoded, message=f"{said}; {left}")
    return ActionResult(OutcomeState.SUCCEEDED, encoded, message=said)


def _plan_result(preview: Preview, total: Done) -> ActionResult:
    encoded = msgspec.json.encode(
        {
            **preview.as_json(),
            "left": total.failed.count,
            "failed": total.failed.as_json()[:_SHOWN],
        }
    )
    return ActionResult(OutcomeState.SUCCEEDED, encoded, message=str(preview))
