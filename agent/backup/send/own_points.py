"""This machine's restore points as the controller lists them, and reports to it about them.

The controller is not believed: a record counts when this very machine has signed it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

import grpc
from cryptography import x509

from agent.backup.send.upload import patiently
from agent.backup.send.wire import SHORT_S, explain
from protocol.codec import to_ms
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import MachineIdentity, believe
from protocol.v1.proof_pb2 import Drill, ReportDrillRequest
from protocol.v1.proof_pb2_grpc import ProofServiceStub
from protocol.v1.vault_pb2 import ListPointsRequest
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from protocol.vault.point import UNREADABLE, RestorePoint, decode_envelope, verify_point

_PATIENCE_S = 600.0


def own_points(
    channel: grpc.Channel,
    identity: MachineIdentity,
    root: x509.Certificate,
    seed: random.Random,
    *,
    limit: int = 0,
) -> list[RestorePoint]:
    """This machine's restore points, newest first, each one signed by it.

    Raises BAD_SIGNATURE for one that is not, and `UnavailableError`.
    """
    stub = VaultServiceStub(channel)

    def ask() -> Sequence[bytes]:
        try:
            answer = stub.ListPoints(ListPointsRequest(limit=limit), timeout=SHORT_S)
        except grpc.RpcError as error:
            raise explain(error) from error
        return [one.record for one in answer.points]

    records = patiently(ask, seed, patience_s=_PATIENCE_S)
    return [_signed(record, identity, root) for record in records]


def point_meant(points: Sequence[RestorePoint], name: str) -> RestorePoint:
    """The restore point of this id, the newest without one; NOT_FOUND when there is none."""
    for point in points:
        if name in {"", point.id}:
            return point
    raise NotFoundError(
        f"this machine has no restore point {name}; see `stead-agent backup ls`"
        if name
        else "this machine has no restore point yet; back it up first"
    )


def report(
    channel: grpc.Channel,
    seed: random.Random,
    *,
    drill: str,
    point: str,
    kind: str,
    state: str,
    started_at: datetime,
    took_ms: int = 0,
    files: int = 0,
    size: int = 0,
    compared: int = 0,
    wrong: int = 0,
    message: str = "",
    details: bytes = b"[]",
    patience_s: float = _PATIENCE_S,
) -> None:
    """Report a drill; it is durable when this returns. Raises `UnavailableError`."""
    stub = ProofServiceStub(channel)
    request = ReportDrillRequest(
        drill=Drill(
            drill_id=drill,
            point_id=point,
            kind=kind,
            state=state,
            started_at_ms=to_ms(started_at),
            took_ms=took_ms,
            files=files,
            bytes=size,
            compared=compared,
            wrong=wrong,
            message=message[:1000],
            details=details,
        )
    )

    def ask() -> None:
        try:
            stub.ReportDrill(request, timeout=SHORT_S)
        except grpc.RpcError as error:
            raise explain(error) from error

    patiently(ask, seed, patience_s=patience_s)


def _signed(record: bytes, identity: MachineIdentity, root: x509.Certificate) -> RestorePoint:
    envelope = decode_envelope(record)
    point = verify_point(envelope)
    try:
        leaf, *above = [x509.load_der_x509_certificate(der) for der in envelope.chain]
    except UNREADABLE as error:
        raise SteadError(
            "a restore point carries an unreadable certificate", code=Code.BAD_SIGNATURE
        ) from error
    signer = believe(leaf, root=root, issuing=above, now=point.started_at)
    if signer != identity or (point.tenant, point.machine) != (identity.tenant, identity.machine):
        raise SteadError(
            "the controller lists a restore point that this machine did not make",
            code=Code.BAD_SIGNATURE,
        )
    return point
