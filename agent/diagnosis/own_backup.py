"""Backups that the machine's own administrator asks for, without an order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import grpc
import msgspec

from agent.config import AgentHome
from agent.host import clock
from agent.host.files import make_private_directory
from agent.host.spool import Printed, Spool
from agent.link.identity import load_identity, open_channel
from agent.link.refusal import error_of_call
from agent.tasks.believe import load_believed
from agent.tasks.execute import Executor
from agent.tasks.standing import backup_of, verified_set
from protocol.codec import from_ms
from protocol.errors import UNREADABLE, Code, SteadError
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState
from protocol.v1 import vault_pb2
from protocol.v1.vault_pb2_grpc import VaultServiceStub

LIMIT = timedelta(days=2)
ANSWER_S = 30.0


class _Progress(msgspec.Struct):
    """What is shown of how far a backup is."""

    phase: str
    files: int
    bytes: int
    sent_bytes: int


def run_backup(home: AgentHome, *, on_progress: Callable[[str], None]) -> Outcome:
    """Make a restore point of the backup set; how it ended, whole or in part.

    Raises NOT_FOUND when there is no set, and what the worker failed with.
    """
    known = load_identity(home)
    believed = load_believed(home, known)
    action = backup_of(verified_set(home, believed))
    directory = home.cache / "routine"
    make_private_directory(directory)
    task = TaskId(clock.new_id("ts"))
    spool = Spool(directory, task)
    told = 0

    def tell() -> None:
        nonlocal told
        while (piece := spool.piece_at(told)) is not None:
            told = piece.next
            if piece.printed is not Printed.STDOUT:
                on_progress(piece.data.decode(errors="backslashreplace").rstrip())

    spool.on_append = tell
    try:
        outcome = asyncio.run(
            Executor(home, known.identity).execute(task, action, limit=LIMIT, spool=spool)
        )
    finally:
        spool.remove()
    if outcome.state in {OutcomeState.SUCCEEDED, OutcomeState.PARTIAL}:
        return outcome
    raise SteadError(outcome.message, code=Code(outcome.code or Code.INTERNAL))


def render_progress(piece: str) -> str:
    """A piece of a worker's progress for people; as it is where it is none.

    >>> render_progress('{"phase":"read","files":9,"bytes":80,"sent_bytes":7,"eta":0.5}')
    'read: 9 files, 80 bytes, 7 bytes sent'
    >>> render_progress("what a command said")
    'what a command said'
    """
    try:
        told = msgspec.json.decode(piece, type=_Progress)
    except UNREADABLE:
        return piece
    return f"{told.phase}: {told.files} files, {told.bytes} bytes, {told.sent_bytes} bytes sent"


def list_points(home: AgentHome) -> list[dict[str, Any]]:
    """This machine's restore points, newest first, as the controller has them."""
    with open_channel(home) as channel:
        try:
            answer = VaultServiceStub(channel).ListPoints(
                vault_pb2.ListPointsRequest(), timeout=ANSWER_S
            )
        except grpc.RpcError as error:
            raise error_of_call(error) from error
    return [_point(point.point_id, from_ms(point.received_at_ms)) for point in answer.points]


def _point(point: str, received_at: datetime) -> dict[str, Any]:
    return {"point": point, "received_at": received_at}
