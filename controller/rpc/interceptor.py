"""What happens to every call before and after its method: one interceptor.

Before: the caller's certificate is believed or not, the table says whether it may
call this, a machine's ratchet whether it is the machine, and only then its request is
read, in its turn, and refused when it has fields that are not known. After: a
`SteadError` leaves as a status with a refusal; anything else leaves as INTERNAL with
a number that the log has too. Meanwhile: a call of a caller who is revoked, or whose
certificate ends, is cut.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from controller import clock
from controller.authority.trust import TOLD, Peer, Trust
from controller.rpc.authorisation import CONNECT, check_allowed, check_waiting
from controller.rpc.refusals import refuse
from protocol.codec import decode_holder, decode_unlock, refuse_unknown
from protocol.errors import Code, InvalidError, SteadError, UnavailableError
from protocol.holder import METADATA_KEY as HOLDER_KEY
from protocol.holder import Holder
from protocol.identity import (
    ControllerIdentity,
    Identity,
    IdentityError,
    MachineIdentity,
    OperatorIdentity,
)
from protocol.unlock import METADATA_KEY, check_unlock

log = structlog.get_logger()

Parse = Callable[[bytes], Any]
Read = Callable[[Any], Awaitable[Any]]
Context = grpc.aio.ServicerContext[Any, Any]
_caller: ContextVar[Peer | None] = ContextVar("caller", default=None)
_LONGEST_TIMER_S = 86_400.0
TURNS = 8
"""Requests that one caller may have read and answered at a time."""

PATIENCE = timedelta(minutes=5)
"""How long a request may take to arrive: 12 MiB of inventory over 320 kbit/s."""

CUT_S = 2.0
"""How long a call that is cut may take to take its leave."""


def machine_calling() -> MachineIdentity:
    """The machine on whose behalf the present call runs."""
    peer = _caller.get()
    if peer is None or not isinstance(peer.identity, MachineIdentity):
        raise IdentityError("only an enrolled machine may call this")
    return peer.identity


def operator_calling() -> OperatorIdentity:
    """The operator on whose behalf the present call runs."""
    peer = _caller.get()
    if peer is None or not isinstance(peer.identity, OperatorIdentity):
        raise IdentityError("only an operator may call this")
    return peer.identity


def caller() -> Identity:
    """Whoever makes the present call; never nobody."""
    peer = _caller.get()
    return peer.identity if peer is not None else ControllerIdentity()


def shown_holder(context: Context) -> Holder:
    """What the caller shows of its ratchet; nothing for an agent that does not know of it."""
    for key, value in context.invocation_metadata() or ():
        if key == HOLDER_KEY and isinstance(value, bytes):
            return decode_holder(value)
    return Holder()


class LiveCalls:
    """The calls that are running, so that they can be cut."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Future[SteadError], Peer] = {}
        self._waiting: set[asyncio.Future[SteadError]] = set()

    @contextmanager
    def entered(self, peer: Peer | None) -> Any:
        """Yield a future that gets an error when the call must end.

        A caller who does not read keeps the call waiting in a write, where nobody looks
        at the future: such a call is ended without a word.
        """
        loop, work = asyncio.get_running_loop(), asyncio.current_task()
        cut: asyncio.Future[SteadError] = loop.create_future()
        timer = leave = None

        def insist(settled: asyncio.Future[SteadError]) -> None:
            nonlocal leave
            if work is not None and not settled.cancelled() and cut in self._waiting:
                leave = loop.call_later(CUT_S, work.cancel)

        cut.add_done_callback(insist)
        self._waiting.add(cut)
        if peer is not None:
            self._calls[cut] = peer
            left = (peer.not_after - clock.now()).total_seconds()
            error = IdentityError("the certificate ended during the call", code=Code.EXPIRED)
            if left < _LONGEST_TIMER_S:
                timer = loop.call_later(max(left, 0.0), _settle, cut, error)
        try:
            yield cut
        finally:
            self._calls.pop(cut, None)
            self._waiting.discard(cut)
            cut.cancel()
            for handle in (timer, leave):
                if handle is not None:
                    handle.cancel()

    def cut(self, identity: Identity, code: Code = Code.REVOKED) -> None:
        """End every call of this identity, and say why."""
        machine = isinstance(identity, MachineIdentity)
        error = IdentityError(TOLD[code] if machine else code.value, code=code)
        for future, peer in list(self._calls.items()):
            if _same(peer.identity, identity):
                _settle(future, error)

    def cut_certified_by(self, authorities: Collection[bytes]) -> None:
        """End the calls of all whose certificates are of these authorities."""
        error = IdentityError(TOLD[Code.DISTRUSTED], code=Code.DISTRUSTED)
        for future, peer in list(self._calls.items()):
            if peer.issuer in authorities:
                _settle(future, error)

    def drain(self) -> None:
        """End every call since the controller goes away."""
        for future in list(self._calls):
            _settle(future, UnavailableError("the controller is shutting down"))


def _settle(future: asyncio.Future[SteadError], error: SteadError) -> None:
    if not future.done():
        future.set_result(error)


def _same(one: Identity, other: Identity) -> bool:
    match one, other:
        case MachineIdentity(machine=a), MachineIdentity(machine=b):
            return a == b
        case OperatorIdentity(name=a_name), OperatorIdentity(name=b_name):
            return a_name == b_name
        case _:
            return False


class Turns:
    """So many requests of one caller at a time; further ones wait, and are not read yet.

    What requests take in memory is bounded by it: one message may have 24 MiB.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken: dict[str, tuple[asyncio.Semaphore, list[object]]] = {}

    @asynccontextmanager
    async def taken(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn, and hold it inside the block."""
        turn, users = self._taken.setdefault(key, (asyncio.Semaphore(self._count), []))
        me = object()
        users.append(me)
        try:
            async with turn:
                yield
        finally:
            users.remove(me)
            if not users:
                del self._taken[key]


class Gate(grpc.aio.ServerInterceptor):
    """See the module. `trust` is None on the port that asks for no certificate."""

    def __init__(
        self, trust: Trust | None, calls: LiveCalls, *, patience: timedelta = PATIENCE
    ) -> None:
        self._trust = trust
        self._calls = calls
        self._patience = patience
        self._turns = Turns(TURNS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the method's handler; see grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        # On the wire one request is a stream of one. gRPC reads a single request before it
        # asks anybody; so each is taken as a stream, and read once its sender may send it.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        wrap = self._streamed if handler.response_streaming else self._single
        read = self._stream if handler.request_streaming else self._one
        inner = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        return make(
            # Requests are parsed inside: gRPC itself would answer bad bytes with UNKNOWN.
            wrap(method, inner, partial(read, handler.request_deserializer)),
            response_serializer=handler.response_serializer,
        )

    def _admit(self, method: str, context: Context) -> Peer | None:
        peer = None
        if self._trust is not None:
            pem = next(iter((context.auth_context() or {}).get("x509_pem_cert", ())), None)
            if pem is None:
                raise IdentityError("show a certificate")
            peer = self._trust.peer_of(pem, clock.now())
            if isinstance(peer.identity, OperatorIdentity) and peer.identity.connects_only:
                return self._admit_connecting(method, context, peer, peer.identity)
        check_allowed(method, peer.identity if peer is not None else None)
        if peer is not None and self._trust is not None and self._trust.is_waiting(peer.identity):
            check_waiting(method)
        if (
            self._trust is not None
            and peer is not None
            and isinstance(peer.identity, MachineIdentity)
            and method != CONNECT
        ):
            # The link has rules of its own: it is what moves the token on.
            self._trust.holding.check(peer.identity, shown_holder(context).token)
        return peer

    def _admit_connecting(
        self, method: str, context: Context, peer: Peer, caller: OperatorIdentity
    ) -> Peer:
        """Admit an operator whose certificate is for connecting alone; see `protocol.unlock`."""
        assert self._trust is not None
        said = dict(context.invocation_metadata() or ()).get(METADATA_KEY)
        if said is not None:
            unlock = decode_unlock(said if isinstance(said, bytes) else said.encode())
            now = clock.now()
            check_unlock(unlock, caller, peer.key, root=self._trust.root, now=now)
        check_allowed(method, caller, looking=said is None)
        return replace(peer, identity=caller.whole())

    async def _one(self, parse: Parse, requests: Any) -> Any:
        """The one request of a call, as a message that is understood whole."""
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                return _checked(await anext(aiter(requests)), parse)
        except StopAsyncIteration:
            raise InvalidError("this call takes a request, and none was sent") from None
        except TimeoutError:
            raise SteadError(
                f"the request did not arrive within {self._patience.seconds} s",
                code=Code.TIMED_OUT,
            ) from None

    async def _stream(self, parse: Parse, requests: Any) -> Any:
        return _checked_stream(requests, parse)

    def _single(self, method: str, inner: Any, read: Read) -> Any:
        async def answer(request: Any, context: Context, peer: Peer | None) -> Any:
            async with self._turns.taken(_key(peer, context)):
                return await inner(await read(request), context)

        async def call(request: Any, context: Context) -> Any:
            work: Any = None
            cut: Any = None
            try:
                peer = self._admit(method, context)
                _caller.set(peer)
                with self._calls.entered(peer) as cut:
                    work = asyncio.ensure_future(answer(request, context, peer))
                    return await _unless(cut, work)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:  # noqa: BLE001 - the edge: nothing inside may reach the peer
                refusal = _refusal_of(method, error)
            # gRPC keeps the error that ends a call, this frame with it, and so all it holds.
            del request, work, cut
            return await refuse(context, refusal)

        return call

    def _streamed(self, method: str, inner: Any, read: Read) -> Any:
        async def arrived(request: Any, context: Context, peer: Peer | None) -> Any:
            async with self._turns.taken(_key(peer, context)):
                return await read(request)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            work: Any = None
            cut: Any = None
            answers: Any = None
            answer: Any = None
            try:
                peer = self._admit(method, context)
                _caller.set(peer)
                with self._calls.entered(peer) as cut:
                    work = asyncio.ensure_future(arrived(request, context, peer))
                    answers = inner(await _unless(cut, work), context)
                    try:
                        while True:
                            work = asyncio.ensure_future(anext(answers))
                            try:
                                answer = await _unless(cut, work)
                            except StopAsyncIteration:
                                return
                            yield answer
                    finally:
                        await answers.aclose()
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:  # noqa: BLE001 - the edge: nothing inside may reach the peer
                refusal = _refusal_of(method, error)
            del request, work, cut, answers, answer
            await refuse(context, refusal)

        return call


async def _unless(cut: asyncio.Future[SteadError], work: asyncio.Future[Any]) -> Any:
    """The result of `work`, unless the call is cut before it is there."""
    try:
        await asyncio.wait({cut, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise cut.result()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        elif not work.cancelled():
            work.exception()  # looked at, also when the call was cancelled meanwhile
        # It holds its error, and the error this frame: a ring, in which a request of many
        # megabytes would stay until the collector comes by.
        del work


def _key(peer: Peer | None, context: Context) -> str:
    """Whose turn a call takes: the caller's, or for want of one that of the address."""
    if peer is not None:
        return peer.identity.uri()
    return str(context.peer()).rpartition(":")[0]


def _checked(request: bytes, parse: Parse) -> Any:
    """A message that is understood whole."""
    try:
        message = parse(request)
    except DecodeError as error:
        raise InvalidError("these bytes are not the message of this call") from error
    refuse_unknown(message)
    return message


async def _checked_stream(requests: Any, parse: Parse) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, parse)


def _refusal_of(method: str, error: Exception) -> SteadError:
    """What the caller is told, without the frames in which it happened."""
    if not isinstance(error, SteadError):
        return _unexpected(method, error)
    return SteadError(str(error), code=error.code)


def _unexpected(method: str, error: Exception) -> SteadError:
    number = secrets.token_hex(4)
    log.error("call_failed", method=method, incident=number, exc_info=error)
    return SteadError(
        f"something went wrong inside the controller; its log has it as incident {number}"
    )
