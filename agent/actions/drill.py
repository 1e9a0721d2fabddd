"""Prove that a restore point of this machine restores, as an order or a schedule asks."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import grpc
import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.actions.action import ActionResult, Workplace
from agent.actions.backup import load_vault_secret
from agent.actions.obeying import obeying
from agent.backup.drill.perform import BYTES, FILES, Drill, Proved
from agent.backup.frugal import save_time_and_memory
from agent.backup.send.own_points import own_points, point_meant, report
from agent.backup.send.wire import GrpcVault
from agent.backup.tree.place import Memory
from agent.backup.tree.state import load_head
from agent.host import clock
from agent.link.identity import Credentials, load_identity
from protocol.action import RunDrill
from protocol.errors import Code, InvalidError, SteadError
from protocol.outcome import OutcomeState
from protocol.vault.keys import machine_scope
from protocol.vault.point import RestorePoint, key_id, open_contents

NEWEST = 20
"""So many restore points are looked at for the newest: the last one made is among them."""

GOOD, WRONG, FAILED = "good", "wrong", "failed"
_UNTOLD = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT})


def execute(action: RunDrill, place: Workplace) -> ActionResult:
    """Drill, and report it to the controller. FAILED when something was not as it should be.

    Raises `UnavailableError` when the controller stays away: then nothing was proved.
    """
    save_time_and_memory()
    started_at = clock.now()
    drill = clock.new_id("dr")
    seed = random.Random(os.urandom(16))  # noqa: S311 - chooses files and spreads retries
    point = action.point_id
    with obeying(place, "it has proved nothing"), place.channel() as channel:
        try:
            found, proved = _drill(action, place, channel, seed)
            point = found.id
        except SteadError as error:
            if error.code in _UNTOLD:
                raise
            report(
                channel,
                seed,
                drill=drill,
                point=point,
                kind="drill",
                state=FAILED,
                started_at=started_at,
                message=str(error),
            )
            result = {"drill": drill, "point": point, "files": 0, "wrong": 0}
            encoded = msgspec.json.encode(result)
            return ActionResult(OutcomeState.FAILED, encoded, error.code, str(error))
        result_of = _result(drill, point, proved)
        report(
            channel,
            seed,
            drill=drill,
            point=point,
            kind="drill",
            state=WRONG if proved.wrong else GOOD,
            started_at=started_at,
            took_ms=int(proved.took_s * 1000),
            files=proved.files,
            size=proved.size,
            compared=proved.compared,
            wrong=len(proved.wrong),
            message=result_of.message,
            details=msgspec.json.encode(proved.as_json()),
        )
    return result_of


def _drill(
    action: RunDrill, place: Workplace, channel: grpc.Channel, seed: random.Random
) -> tuple[RestorePoint, Proved]:
    credentials = load_identity(place.home)
    memory = Memory(place.home.cache / "backup")
    limit = 0 if action.point_id else NEWEST
    points = own_points(channel, credentials.identity, credentials.root, seed, limit=limit)
    point = point_meant(points, action.point_id)
    if not action.point_id:
        _check_newest(points, memory)
    contents = open_contents(_own_key(place, credentials), _sealed_to_machine(point))
    secret = load_vault_secret(place.home)
    if key_id(secret.recovery_public) not in {sealed.key for sealed in point.sealed}:
        raise SteadError(
            f"restore point {point.id} was made under a recovery key that is no longer in "
            "force; the next backup is made under the new one and can be drilled",
            code=Code.PRECONDITION,
        )
    if point.scope == "machine":
        secret = machine_scope(secret, point.machine)
    drill = Drill(
        contents.root,
        vault=GrpcVault(channel),
        secret=secret,
        # Beside the backups' memory, which no backup takes in.
        scratch=memory.path / "drill",
        seed=seed,
        progress=place.progress,
        control=place.control,
    )
    proved = drill.run(
        count=action.max_files or FILES,
        max_bytes=action.max_bytes or BYTES,
        canaries=[path.strip(b"/") for path in action.canaries],
    )
    return point, proved


def _check_newest(points: Sequence[RestorePoint], memory: Memory) -> None:
    """Raise where the controller does not show the restore point that was made last."""
    head = load_head(memory.state)
    last = head.header.point if head is not None else ""
    if last and last not in {point.id for point in points}:
        raise SteadError(
            f"the controller does not list restore point {last}, the last one that this machine "
            "made: it was forgotten, or is being hidden",
            code=Code.NOT_FOUND,
        )


def _sealed_to_machine(point: RestorePoint) -> RestorePoint:
    if not any(one.kind == "machine" for one in point.sealed):
        raise SteadError(
            f"restore point {point.id} is not sealed to this machine's own key; order the backup "
            "set with `--drill weekly` and back up again",
            code=Code.PRECONDITION,
        )
    return point


def _own_key(place: Workplace, credentials: Credentials) -> X25519PrivateKey:
    try:
        return X25519PrivateKey.from_private_bytes(place.home.sealing_key.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"{credentials.identity.machine} has no key of its own for restores: {error}; enroll "
            "it again with `stead-agent enroll --force`"
        ) from error


def _result(drill: str, point: str, proved: Proved) -> ActionResult:
    took_ms = int(proved.took_s * 1000)
    encoded = msgspec.json.encode(
        {
            "drill": drill,
            "point": point,
            "files": proved.files,
            "bytes": proved.size,
            "took_ms": took_ms,
            "bytes_per_s": int(proved.size / proved.took_s) if proved.took_s else 0,
            "compared": proved.compared,
            "wrong": len(proved.wrong),
            "details": proved.as_json(),
        }
    )
    said = (
        f"{proved.files} files, {proved.size} bytes restored in {proved.took_s:.1f} s, "
        f"{proved.compared} compared with the live ones"
    )
    if not proved.wrong:
        return ActionResult(OutcomeState.SUCCEEDED, encoded, message=said)
    count = "1 is wrong" if len(proved.wrong) == 1 else f"{len(proved.wrong)} are wrong"
    first = proved.as_json(1)[0]
    message = f"{said}; {count}, such as {first['path']}: {first['reason']}"
    return ActionResult(OutcomeState.FAILED, encoded, Code.CHUNK_DAMAGED, message)
