"""The vault over gRPC: the one module of backup and restore that touches the wire.

What the link or the transport did becomes `LinkLostError`; what the controller refused becomes
a `SteadError` with the controller's code and words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import grpc

from agent.backup.send.vault import Batch, LinkLostError, Session
from protocol.codec import refusal_from_pb
from protocol.errors import Code, SteadError
from protocol.moment import from_ms
from protocol.v1 import vault_pb2 as pb
from protocol.v1.refusal_pb2 import Refusal
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from protocol.vault.chunk import ChunkId

SHORT_S = 60.0
COMMIT_S = 600.0

REFUSAL = "stead-refusal-bin"
_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
_PASSING = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT, Code.INTERNAL})


def explain(error: grpc.RpcError) -> SteadError:
    """What a failed call means."""
    call = _call(error)
    if call is None:
        return LinkLostError(f"a call failed: {error}")
    for key, value in call.trailing_metadata() or ():
        if key == REFUSAL and isinstance(value, bytes):
            refusal = refusal_from_pb(Refusal.FromString(value))
            return LinkLostError(str(refusal)) if refusal.code in _PASSING else refusal
    code, details = call.code(), call.details()
    if code in _LOST:
        return LinkLostError(f"the link to the controller broke: {details or code.name}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return SteadError(
            "this controller keeps no backups; is it an older release?", code=Code.UNSUPPORTED
        )
    return SteadError(f"the controller refused the call: {details or code.name}")


def _call(error: object) -> grpc.Call | None:
    """An error of a call is the call itself, which the type stubs do not know."""
    return error if isinstance(error, grpc.Call) else None


class _Has:
    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> Sequence[bool]:
        """See `Answer`."""
        try:
            return list(self._future.result().held)
        except grpc.RpcError as error:
            raise explain(error) from error
        except grpc.FutureCancelledError as error:
            raise LinkLostError("the link to the controller was closed") from error


class GrpcVault:
    """The vault behind a channel that shows this machine's certificate."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = VaultServiceStub(channel)

    def begin(self, point: str) -> Session:
        """See `Vault`."""
        try:
            answer = self._stub.Begin(pb.BeginRequest(point_id=point), timeout=SHORT_S)
        except grpc.RpcError as error:
            raise explain(error) from error
        return Session(
            answer.session_id,
            answer.fence,
            answer.parent_point_id,
            answer.parent_record_hash,
            from_ms(answer.controller_time_ms),
        )

    def has(self, session: str, ids: Sequence[ChunkId]) -> _Has:
        """See `Vault`."""
        request = pb.HasRequest(session_id=session, chunk_ids=ids)
        return _Has(self._stub.Has.future(request, timeout=SHORT_S))

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:
        """See `Vault`."""

        def requests() -> Iterator[pb.PutRequest]:
            yield pb.PutRequest(session_id=session)
            for batch in batches:
                yield pb.PutRequest(chunks=batch.chunks, flush=batch.flush)

        call = self._stub.Put(requests())
        try:
            for answer in call:
                yield answer.durable
        except grpc.RpcError as error:
            raise explain(error) from error
        finally:
            call.cancel()

    def commit(self, session: Session, record: bytes) -> datetime:
        """See `Vault`."""
        request = pb.CommitRequest(session_id=session.id, fence=session.fence, record=record)
        try:
            answer = self._stub.Commit(request, timeout=COMMIT_S)
        except grpc.RpcError as error:
            raise explain(error) from error
        return from_ms(answer.received_at_ms)

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """See `Vault`. The call is begun at once, not when its answer is first read."""
        call = self._stub.Get(pb.GetRequest(chunk_ids=ids))

        def answers() -> Iterator[bytes]:
            try:
                for answer in call:
                    yield from answer.chunks
            except grpc.RpcError as error:
                raise explain(error) from error
            finally:
                call.cancel()

        return answers()
