"""Write parts of a restore point into directories of this machine."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.actions.action import ActionResult, Workplace
from agent.actions.backup import load_vault_secret
from agent.actions.obeying import obeying
from agent.backup.frugal import save_time_and_memory
from agent.backup.restore.belonging import owners_of
from agent.backup.restore.bounds import Bounds, CannotTellError
from agent.backup.restore.durable import Written
from agent.backup.restore.extra import Removals, nothing_removed
from agent.backup.restore.flow import Flow
from agent.backup.restore.placed import Done, TargetFullError
from agent.backup.restore.preview import Preview
from agent.backup.restore.write import Restore
from agent.backup.select.commands import check_commands
from agent.backup.select.places import normalise
from agent.backup.select.set_hash import set_hash
from agent.backup.send.pace import checked_limit, lower
from agent.backup.send.wire import GrpcVault
from agent.backup.skipped import reason_of, shown
from agent.config import AgentHome
from agent.host import clock
from protocol.action import PlanRestore, RestoreFiles, RestorePart, RunBackup
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.outcome import OutcomeState
from protocol.vault.grant import Grant, open_grant
from protocol.vault.keys import VaultSecret

_SHOWN = 200
_ABSENT = "is not there yet: all of it would be created"
_PATIENCE_S = 600.0
_COARSE_MS = 20
"""A file system's clock is so far behind: it ticks with the kernel's, at most every 10 ms."""


def execute(action: RestoreFiles, place: Workplace) -> ActionResult:
    """Restore what the order's grants name. PARTIAL when some of it could not be.

    The subtree at each part's path arrives in its target under its own last name. Each sealed
    reference is a grant, bound to this tenant, machine and restore point. Raises `SealedError`
    when one was meant for another, PRECONDITION when this machine has no keys or cannot tell
    what may be removed, and `InvalidError` for a target that cannot be used.
    """
    save_time_and_memory()
    began = clock.monotonic()
    is_plan = isinstance(action, PlanRestore)
    looked_at_ms = clock.wall_ns() // 1_000_000 - _COARSE_MS
    told = _Told(is_plan=is_plan, has_parts=bool(action.parts), looked_at_ms=looked_at_ms)
    settings = place.home.load_settings()
    flow = Flow(place.control, _limit(action.limit_download, settings.limit_download))
    with (
        obeying(place, "what was restored stays, and the same order again goes on with the rest"),
        place.channel() as channel,
        Written() as written,
    ):
        vault = GrpcVault(channel)
        is_last = not (action.delete_extra and action.parts)
        for part, restore in _restores(action, place, vault, written, flow, remove=is_last):
            _do(part, restore, told)
            if told.full is not None:
                break
        if not is_last and told.full is None:
            # What one part lacks may be an extra of another: all are written before any goes.
            if told.done.failed.count:
                told.spare()
            else:
                for part, restore in _restores(action, place, vault, written, flow, remove=True):
                    _do(part, restore, told, again=True)
        if not is_plan and told.full is None:
            done = told.done
            place.progress({"phase": "sync", "files": done.files, "bytes": done.bytes})
            written.make_durable()
    return told.result(clock.monotonic() - began)


def _do(part: RestorePart, restore: Restore | None, told: _Told, *, again: bool = False) -> None:
    """Restore a part, or look; `again`: for what it removes, the rest has been told."""
    told.before = part.target if told.has_parts else b""
    if restore is None:
        if not again:
            told.absent(part)
        return
    try:
        seen = restore.preview() if told.is_plan else None
        if seen is None:
            restore.run()
        elif not again:
            told.preview.join(seen, told.before)
    except TargetFullError as error:
        told.full = error
    told.add(restore, again=again)


def _limit(*limits: int) -> int:
    limit = lower(*limits)
    return checked_limit(limit) if limit else 0


def _restores(
    action: RestoreFiles,
    place: Workplace,
    vault: GrpcVault,
    written: Written,
    flow: Flow,
    *,
    remove: bool,
) -> Iterator[tuple[RestorePart, Restore | None]]:
    """A restore for each grant; None for a part whose target is not there to be looked at.

    `remove`: they also remove what is extra, if the order says so.
    """
    owners = owners_of(action.owners)
    is_plan = isinstance(action, PlanRestore)
    for part in action.all_parts:
        _check_not_own(part, place.home.path)
        target = _planned_target(part.target) if is_plan else _target(part.target)
        if target is None and not action.parts:
            raise NotFoundError(f"{shown(part.target[:200])} {_ABSENT}")
        for grant, secret in grants_of(action.point_id, part.sealed_references, place):
            if target is None:
                yield part, None
                break
            if action.delete_extra and (len(part.sealed_references) != 1 or not action.overwrite):
                raise InvalidError("removing goes with overwriting, and with one grant for a path")
            # Asked for in any case: an order that cannot be carried out writes nothing.
            bounds = _bounds(action, place, secret) if action.delete_extra else None
            yield (
                part,
                Restore(
                    grant.spans,
                    strip=part.path.strip(b"/").rpartition(b"/")[0],
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
                    bounds=bounds if remove else None,
                    own=_identity(place.home.path),
                    flow=flow,
                ),
            )


def _bounds(action: RestoreFiles, place: Workplace, secret: VaultSecret) -> Bounds:
    """What the restore point's rules left out; PRECONDITION when they are not known here."""
    known = _backup_of_set(place)
    if known is None or _hash_of(known, secret) != action.rules:
        raise CannotTellError(
            "this machine has no backup set with the paths and rules that this restore point was "
            "made by, so nobody can tell what they left out from what is new; order that set "
            "again with `stead backup set`, or restore without --delete-extra"
        )
    return Bounds(known.paths, known.rules, action.skipped, action.looked_at_ms)


def _backup_of_set(place: Workplace) -> RunBackup | None:
    try:
        return place.of_set()
    except SteadError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None


def _hash_of(known: RunBackup, secret: VaultSecret) -> bytes:
    streams = check_commands(known.commands, known.paths)
    return set_hash(normalise(known.paths), known.rules, streams, secret)


def _identity(path: Path) -> frozenset[tuple[int, int]]:
    seen = path.stat()
    return frozenset([(seen.st_dev, seen.st_ino)])


def _check_not_own(part: RestorePart, home: Path) -> None:
    """INVALID for what would arrive in the agent's own directory."""
    target = Path(os.fsdecode(part.target))
    arrives = target / os.fsdecode(part.path.strip(b"/").rpartition(b"/")[2])
    if b"\0" not in part.target and arrives.resolve().is_relative_to(home.resolve()):
        raise InvalidError(
            f"{shown(bytes(arrives)[:200])} is the agent's own: its keys and its journal are of "
            "today; restore into another directory with --to"
        )


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


def _planned_target(path: bytes) -> bytes | None:
    """The directory to look into; None when a restore would have to make it."""
    if not path.startswith(b"/") or b"\0" in path:
        raise InvalidError("the directory to restore into has to be an absolute path")
    return path if Path(os.fsdecode(path)).is_dir() else None


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


class _Told:
    """What is to be told of all parts. `before` is what the paths of the next begin with.

    `looked_at_ms`, since 1970, is before anything was looked at.
    """

    def __init__(self, *, is_plan: bool, has_parts: bool, looked_at_ms: int) -> None:
        self.is_plan = is_plan
        self.looked_at_ms = looked_at_ms
        self.has_parts = has_parts
        self.before = b""
        self.preview = Preview()
        self.done = Done()
        self.removals = Removals()
        self.fetched_bytes = 0
        self.full: TargetFullError | None = None

    def absent(self, part: RestorePart) -> None:
        """A part cannot be looked at, because its target is not there."""
        self.done.failed.add(part.target, _ABSENT)

    def spare(self) -> None:
        """Nothing is removed, since not everything could be restored."""
        self.done.failed.add(b"", nothing_removed(self.done.failed.count))

    def add(self, restore: Restore, *, again: bool) -> None:
        """What one restore has done, or found; `again`: after all of it had been told."""
        total, done = self.done, restore.done
        if not again:
            total.files += done.files
            total.bytes += done.bytes
            total.others += done.others
            total.same += done.same
            total.warnings.join(done.warnings, self.before)
        total.failed.join(done.failed, self.before)
        total.failed.join(restore.removals.failed, self.before)
        self.removals.join(restore.removals, self.before)
        self.fetched_bytes += restore.fetched_bytes

    def result(self, seconds: float) -> ActionResult:
        """The result of the action."""
        return self._plan() if self.is_plan else self._done(seconds)

    def _done(self, seconds: float) -> ActionResult:
        done = self.done
        encoded = msgspec.json.encode(
            {
                "files": done.files,
                "bytes": done.bytes,
                "others": done.others,
                "same": done.same,
                **self.removals.as_json("removed"),
                "fetched_bytes": self.fetched_bytes,
                "seconds": round(seconds, 3),
                "left": done.failed.count,
                "failed": done.failed.as_json()[:_SHOWN],
                "warned": done.warnings.count,
                "warnings": done.warnings.as_json()[:_SHOWN],
            }
        )
        said = f"{done.files} files, {done.bytes} bytes restored, {done.same} were the same already"
        if self.removals.count:
            said += f", {self.removals.count} things removed"
        if self.full is not None:
            return ActionResult(OutcomeState.FAILED, encoded, self.full.code, str(self.full))
        if done.failed.count:
            count = done.failed.count
            left = "1 thing was not" if count == 1 else f"{count} things were not"
            return ActionResult(OutcomeState.PARTIAL, encoded, message=f"{said}; {left}")
        return ActionResult(OutcomeState.SUCCEEDED, encoded, message=said)

    def _plan(self) -> ActionResult:
        failed = self.done.failed
        encoded = msgspec.json.encode(
            {
                **self.preview.as_json(),
                **self.removals.as_json("remove"),
                "looked_at_ms": self.looked_at_ms,
                "left": failed.count,
                "failed": failed.as_json()[:_SHOWN],
            }
        )
        said = str(self.preview)
        if self.removals.count:
            said += f", {self.removals.count} to remove"
        return ActionResult(OutcomeState.SUCCEEDED, encoded, message=said)
