"""One connection: Hello and Welcome, then messages both ways until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import grpc

from agent.host import clock, log
from agent.link.outbox import Outbox
from agent.link.refusal import error_of_call, refusal_of
from protocol.ceiling import Ceiling
from protocol.codec import encode_holder, from_ms, refusal_from_pb, refuse_unknown, to_ms
from protocol.errors import Code, SteadError, UnavailableError
from protocol.holder import LONGEST_TOKEN, METADATA_KEY, Holder
from protocol.ids import TaskId
from protocol.v1 import link_pb2
from protocol.v1.link_pb2_grpc import LinkServiceStub
from protocol.witness import Watched

WELCOME_S = 30.0
SILENCE = 2.5
"""After so many intervals without an answer the connection is lost."""

NOBODY = Holder()
WATCHES_LOGS = 6
"""The revision of the protocol that tells checkpoints of the audit logs."""

TELLS_CEILING = 5
"""The revision that knows what a machine's own administrator rules out."""

TELLS_RUNS = 3
"""The revision of the protocol that knows runs of standing orders."""

SHORTEST_HEARTBEAT_S = 1
LONGEST_HEARTBEAT_S = 300


class Listener(Protocol):
    """Who is told what the controller says."""

    def connected(self, controller_time: datetime, heartbeat: timedelta) -> None:
        """Welcome has come, and there will be a sign of life this often."""

    def alive(self, controller_time: datetime) -> None:
        """A heartbeat was acknowledged."""

    def offered(self, task: TaskId, envelope: bytes) -> None:
        """A task is on offer."""

    def acknowledged(self, task: TaskId) -> None:
        """An outcome is durable at the controller."""

    def revoked(self, revocations: bytes) -> None:
        """This is said to be the newest list of revoked operators."""

    def ruled(self, policy: bytes) -> None:
        """This is said to be the newest policy of the machine's tenant."""

    def watched(self) -> Watched:
        """What this machine keeps of the audit logs."""

    def told_checkpoint(self, signed: bytes, proof: Sequence[bytes]) -> bool:
        """An audit log is said to be this now. True when the controller should hear `watched`."""

    def running(self) -> Sequence[TaskId]:
        """The tasks whose leases a heartbeat renews."""

    def inventory_root(self) -> bytes:
        """The hash over all sections that were last reported."""

    def ceiling(self) -> Ceiling | None:
        """What this machine's own administrator rules out; None when that cannot be read."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The controller goes away and asks to be left alone for a moment."""

    within: timedelta


class Stream:
    """One connection on a channel."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        outbox: Outbox,
        listener: Listener,
        *,
        holder: Holder = NOBODY,
        keep: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`holder` is shown beside Hello; `keep` makes the token of Welcome durable."""
        self._keep = keep
        self._call: Any = LinkServiceStub(channel).Connect(
            metadata=((METADATA_KEY, encode_holder(holder)),)
        )
        self._outbox = outbox
        self._listener = listener
        self._heard_at = clock.monotonic()
        self._interval_s = float(LONGEST_HEARTBEAT_S)
        self._tells_ceiling = False
        self._watches = False

    async def converse(
        self, hello: link_pb2.Hello, *, welcomed: Callable[[], None] = lambda: None
    ) -> Drained:
        """Talk until the controller drains; every other end raises `SteadError`.

        `welcomed` is called when the controller has taken the link.
        UNAVAILABLE for a connection that was lost, the controller's own code for a refusal.
        """
        work: set[asyncio.Task[Any]] = set()
        try:
            await self._greet(hello)
            welcomed()
            self._outbox.begin_anew()
            if self._watches:
                self._outbox.witnessed(self._listener.watched())
            receiving = asyncio.create_task(self._receive())
            work = {
                receiving,
                asyncio.create_task(self._send()),
                asyncio.create_task(self._beat()),
                asyncio.create_task(self._fallen_silent()),
            }
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            if receiving not in done and receiving.done() is False:
                # A write fails with less to say than the read that follows it.
                await asyncio.wait({receiving}, timeout=1.0)
            first = receiving if receiving.done() else done.pop()
            return _drained(first.result())
        except grpc.RpcError as error:
            raise error_of_call(error) from error
        except asyncio.InvalidStateError as error:
            raise await self._why_over() from error
        finally:
            for task in work:
                task.cancel()
            self._call.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _greet(self, hello: link_pb2.Hello) -> None:
        try:
            async with asyncio.timeout(WELCOME_S):
                await self._call.write(link_pb2.ConnectRequest(hello=hello))
                answer = await self._read()
        except TimeoutError:
            raise UnavailableError(
                f"the controller did not answer Hello within {WELCOME_S:g} s"
            ) from None
        if answer.WhichOneof("message") != "welcome":
            raise _misunderstood("something else than Welcome came first")
        welcome = answer.welcome
        self._tells_ceiling = welcome.revision >= TELLS_CEILING
        self._outbox.tells_runs = welcome.revision >= TELLS_RUNS
        self._watches = welcome.revision >= WATCHES_LOGS
        self._interval_s = float(
            min(max(welcome.heartbeat_interval_s, SHORTEST_HEARTBEAT_S), LONGEST_HEARTBEAT_S)
        )
        self._heard_at = clock.monotonic()
        if 0 < len(welcome.ratchet) <= LONGEST_TOKEN:
            # A longer one could not be shown any more, to whichever controller.
            await self._keep_ratchet(welcome.ratchet)
        self._listener.connected(
            from_ms(welcome.controller_time_ms), timedelta(seconds=self._interval_s)
        )

    async def _keep_ratchet(self, token: bytes) -> None:
        """Make a token durable, then say so; on a full disk the one before goes on counting."""
        try:
            await asyncio.to_thread(self._keep, token)
        except SteadError as error:
            log.warning("ratchet_not_kept", code=error.code, reason=str(error))
            return
        kept = link_pb2.RatchetKept(token=token)
        await self._call.write(link_pb2.ConnectRequest(ratchet_kept=kept))

    async def _read(self) -> link_pb2.ConnectResponse:
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            raise await self._why_over()
        assert isinstance(answer, link_pb2.ConnectResponse)
        try:
            refuse_unknown(answer)
        except SteadError as error:
            raise _misunderstood(str(error)) from error
        self._heard_at = clock.monotonic()
        return answer

    async def _why_over(self) -> SteadError:
        trailing = await self._call.trailing_metadata()
        pairs = [(str(key), value) for key, value in trailing or ()]
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return UnavailableError("the controller ended the link")
        return refusal_of(code, await self._call.details(), pairs)

    async def _receive(self) -> Drained:
        while True:
            answer = await self._read()
            match answer.WhichOneof("message"):
                case "task_offer":
                    offer = answer.task_offer
                    self._listener.offered(TaskId(offer.task_id), offer.envelope)
                    await self._outbox.room()
                case "outcome_acknowledged":
                    self._listener.acknowledged(TaskId(answer.outcome_acknowledged.task_id))
                case "heartbeat_acknowledged":
                    at = answer.heartbeat_acknowledged.controller_time_ms
                    self._listener.alive(from_ms(at))
                case "revocations_changed":
                    self._listener.revoked(answer.revocations_changed.revocations)
                case "policy_changed":
                    self._listener.ruled(answer.policy_changed.policy)
                case "checkpoint_told":
                    told = answer.checkpoint_told
                    if self._listener.told_checkpoint(told.checkpoint, tuple(told.proof)):
                        self._outbox.witnessed(self._listener.watched())
                        await self._outbox.room()
                case "refusal":
                    refused = refusal_from_pb(answer.refusal)
                    log.warning("message_refused", code=refused.code, reason=str(refused))
                case "drain":
                    return Drained(timedelta(seconds=answer.drain.reconnect_within_s))
                case other:
                    raise _misunderstood(f"{other or 'a message of an unknown kind'} came")

    async def _send(self) -> None:
        while True:
            await self._call.write(await self._outbox.next())

    def _ceiling(self) -> link_pb2.Ceiling | None:
        found = self._listener.ceiling() if self._tells_ceiling else None
        if found is None:
            return None
        return link_pb2.Ceiling(
            deny=found.deny, read_only=found.read_only, policy_version=found.policy_version
        )

    async def _beat(self) -> None:
        while True:
            self._outbox.heartbeat(
                link_pb2.Heartbeat(
                    agent_time_ms=to_ms(clock.now()),
                    inventory_root=self._listener.inventory_root(),
                    ceiling=self._ceiling(),
                    running_task_ids=self._listener.running(),
                )
            )
            await asyncio.sleep(self._interval_s)
            self._outbox.tell_again()

    async def _fallen_silent(self) -> None:
        """Raise UNAVAILABLE when nothing was heard for too long: gRPC may not notice in time."""
        while True:
            left = self._heard_at + SILENCE * self._interval_s - clock.monotonic()
            if left <= 0:
                raise UnavailableError("the controller has fallen silent")
            await asyncio.sleep(left)


def _drained(result: object) -> Drained:
    assert isinstance(result, Drained)
    return result


def _misunderstood(what: str) -> SteadError:
    return SteadError(
        f"{what}; the link was ended, since this release does not know what that means: "
        "upgrade the agent",
        code=Code.UNKNOWN_FIELD,
    )
