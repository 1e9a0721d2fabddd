"""Backups that the machine's own administrator asks for, without an order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import grpc

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
from protocol.errors import Code, SteadError
from protocol.ids import TaskId
from protocol.outcome import OutcomeState
from protocol.v1 import vault_pb2
from protocol.v1.vault_pb2_grpc import VaultServiceStub

LIMIT = timedelta(days=2)
ANSWER_S = 30.0


def run_backup(home: AgentHome, *, on_progress: Callable[[str], None]) -> tuple[str, int]:
    """Make a restore point of the backup set; its result as JSON, and the exit code.

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
    if outcome.state is OutcomeState.SUCCEEDED:
        return outcome.result.decode(), 0
    if outcome.state is OutcomeState.PARTIAL:
        return outcome.result.decode(), 3
    raise SteadError(outcome.message, code=Code(outcome.code or Code.INTERNAL))


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
