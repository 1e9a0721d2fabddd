"""`LinkService`: the stream that every agent holds open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import structlog

from controller import clock
from controller.audit.log import INSTALLATION
from controller.audit.witnesses import Witnesses
from controller.authority import holders
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.fleet.presence import Greeting, Parting, Presence
from controller.jobs.desk import JobDesk
from controller.rpc.interceptor import Context, machine_calling, shown_holder
from controller.rpc.telling import Outgoing, Telling
from controller.version import VERSION
from protocol.ceiling import Ceiling, bounded
from protocol.checkpoint import Found, from_us
from protocol.codec import REVISION, from_ms, outcome_from_pb, refusal_to_pb, to_ms
from protocol.errors import Code, InvalidError, SteadError
from protocol.holder import Holder
from protocol.identity import MachineIdentity
from protocol.ids import OrderId
from protocol.standing import Run
from protocol.v1 import link_pb2 as pb
from protocol.v1.link_pb2_grpc import LinkServiceServicer

log = structlog.get_logger()

HEARTBEAT_S = 30
SILENCE_S = 2.5 * HEARTBEAT_S
"""So that a connection that only seems to be there is given up well within 90 s."""
LOOK_EVERY = timedelta(seconds=20)
WAITING = 256
OLDEST_REVISION = 1
KNOWS_RATCHET = 4
DRAIN_S = 2
RECONNECTS_PER_S = 100
CLOCK_LIMIT = timedelta(hours=12)


class Link(LinkServiceServicer):
    """See `protocol/v1/link.proto`."""

    def __init__(
        self,
        db: Database,
        desk: JobDesk,
        presence: Presence,
        trust: Trust,
        witnesses: Witnesses,
        *,
        heartbeat_s: int = HEARTBEAT_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._desk = desk
        self._witnesses = witnesses
        self._presence = presence
        self._trust = trust
        self._telling = Telling(db, desk.feed, trust, witnesses, chance)
        self._heartbeat_s = heartbeat_s

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        """See `protocol/v1/link.proto`."""
        machine = machine_calling()
        hello = await _first(request_iterator)
        welcome = self._welcome(hello)
        holder = shown_holder(context)
        welcome.ratchet = await self._judge(machine, holder, welcome.revision)
        outgoing: Outgoing = asyncio.Queue(WAITING)
        watched: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        async with self._presence.linked_as(machine, _greeting(hello)) as parting:
            # Who is welcomed counts as linked already.
            yield pb.ConnectResponse(welcome=welcome)
            workers = [
                asyncio.create_task(
                    self._listen(machine, holder, request_iterator, outgoing, watched)
                ),
                asyncio.create_task(self._offer(machine, outgoing)),
                asyncio.create_task(self._part(parting, outgoing)),
            ]
            workers += self._telling.begin(machine, welcome.revision, watched, outgoing)
            try:
                while True:
                    message = await outgoing.get()
                    if message is None:
                        return
                    if isinstance(message, SteadError):
                        raise message
                    yield message
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _welcome(self, hello: pb.Hello) -> pb.Welcome:
        now = clock.now()
        if hello.revision < OLDEST_REVISION:
            raise SteadError(
                f"this agent speaks revision {hello.revision} of the protocol and the oldest "
                f"that is still spoken here is {OLDEST_REVISION}; upgrade the agent",
                code=Code.UPGRADE_REQUIRED,
            )
        theirs = from_ms(hello.agent_time_ms)
        if abs(theirs - now) > CLOCK_LIMIT:
            raise SteadError(
                f"this machine's clock says {theirs:%Y-%m-%d %H:%M}Z and the controller's "
                f"{now:%Y-%m-%d %H:%M}Z; set the clock",
                code=Code.CLOCK_SKEW,
            )
        return pb.Welcome(
            controller_time_ms=to_ms(now),
            heartbeat_interval_s=self._heartbeat_s,
            revision=min(hello.revision, REVISION),
            controller_version=VERSION,
        )

    async def _judge(self, machine: MachineIdentity, holder: Holder, revision: int) -> bytes:
        """The token to hand out; a refusal for who is not the machine, or may not be."""
        greeted = await self._db.write(
            lambda c: holders.greet(
                c,
                machine,
                holder,
                linked=self._presence.linked(machine.machine),
                ratchets_on=revision >= KNOWS_RATCHET,
                now=clock.now(),
            )
        )
        if greeted.newest:
            self._trust.holding.moved_on(machine.machine, greeted.newest)
        if greeted.parked:
            self._trust.revoke(machine, Code.PARKED)
        if greeted.refusal is not None:
            raise greeted.refusal
        return greeted.token

    async def _part(self, parting: asyncio.Future[Parting], outgoing: Outgoing) -> None:
        """End the link when the controller's side has a reason to."""
        if await parting is Parting.SUPERSEDED:
            await outgoing.put(SteadError("the machine made a newer link", code=Code.LOCKED))
            return
        # The more machines there are, the longer they take to come back, so that they
        # do not come all at once.
        within = DRAIN_S + len(self._presence) // RECONNECTS_PER_S
        await outgoing.put(pb.ConnectResponse(drain=pb.Drain(reconnect_within_s=within)))
        await outgoing.put(None)

    async def _listen(
        self,
        machine: MachineIdentity,
        holder: Holder,
        requests: AsyncIterator[pb.ConnectRequest],
        outgoing: Outgoing,
        watched: asyncio.Future[dict[str, int]],
    ) -> None:
        """Take what the agent says until it hangs up or falls silent."""
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    request = await anext(requests)
                try:
                    answer = await self._take(machine, holder, request, watched)
                except InvalidError as error:
                    answer = pb.ConnectResponse(refusal=refusal_to_pb(error))
                if answer is not None:
                    await outgoing.put(answer)
        except StopAsyncIteration:
            await outgoing.put(SteadError("the agent hung up", code=Code.UNAVAILABLE))
        except TimeoutError:
            silence = f"nothing was heard of the agent for {SILENCE_S:g} s"
            await outgoing.put(SteadError(silence, code=Code.TIMED_OUT))
        except SteadError as error:
            await outgoing.put(error)
        except Exception:
            log.exception("link_failed", machine=machine.machine)
            await outgoing.put(SteadError("something went wrong inside the controller"))

    async def _take(
        self,
        machine: MachineIdentity,
        holder: Holder,
        request: pb.ConnectRequest,
        watched: asyncio.Future[dict[str, int]],
    ) -> pb.ConnectResponse | None:
        match request.WhichOneof("message"):
            case "heartbeat":
                if request.heartbeat.HasField("ceiling"):
                    said = request.heartbeat.ceiling
                    self._presence.ceilings[machine.machine] = bounded(
                        Ceiling(tuple(said.deny), said.read_only, said.policy_version)
                    )
                await self._desk.alive(machine, request.heartbeat.running_task_ids)
                return pb.ConnectResponse(
                    heartbeat_acknowledged=pb.HeartbeatAcknowledged(
                        controller_time_ms=to_ms(clock.now())
                    )
                )
            case "ratchet_kept":
                token = request.ratchet_kept.token
                newest = await self._db.write(
                    lambda c: holders.keep(c, machine, token, holder.hardware, clock.now())
                )
                self._trust.holding.moved_on(machine.machine, newest)
                return None
            case "task_started":
                started = request.task_started
                at = from_ms(started.started_at_ms)
                if started.HasField("run"):
                    await self._ran(machine, started)
                    return None
                await self._desk.started(machine, started.task_id, at)
                return None
            case "task_output":
                await self._desk.printed(
                    machine,
                    request.task_output.task_id,
                    request.task_output.sequence,
                    _stream_name(request.task_output.stream),
                    request.task_output.data,
                )
                return None
            case "task_outcome":
                task = await self._desk.ended(machine, outcome_from_pb(request.task_outcome))
                return pb.ConnectResponse(outcome_acknowledged=pb.OutcomeAcknowledged(task_id=task))
            case "witnessed":
                sizes = await self._witnessed(machine, request.witnessed)
                if watched.done():
                    # What it could not keep, the next proof must not begin from.
                    watched.result().update(sizes)
                else:
                    watched.set_result(sizes)
                return None
            case other:
                raise InvalidError(f"a link takes no {other or 'empty message'} here")

    async def _witnessed(self, machine: MachineIdentity, said: pb.Witnessed) -> dict[str, int]:
        """Keep a machine's alarms; of which sizes it has checkpoints, by log."""
        mine = {machine.tenant, INSTALLATION}
        sizes = {one.tenant_id: one.size for one in said.logs}
        alarms = {(one.tenant_id, one.found): from_us(one.at_us) for one in said.alarms}
        words = {found.value for found in Found}
        if not sizes.keys() | {log_id for log_id, _ in alarms} <= mine or any(
            found not in words for _, found in alarms
        ):
            raise InvalidError("a machine watches its tenant's log and the installation's")
        await self._witnesses.alarmed(machine, alarms)
        return sizes

    async def _ran(self, machine: MachineIdentity, started: pb.TaskStarted) -> None:
        run = started.run
        await self._desk.ran(
            machine,
            started.task_id,
            Run(OrderId(run.order_id), from_ms(run.slot_ms), run.number),
            started_at=from_ms(started.started_at_ms) if started.started_at_ms else None,
            next_at=from_ms(run.next_at_ms) if run.next_at_ms else None,
        )

    async def _offer(
        self,
        machine: MachineIdentity,
        outgoing: Outgoing,
    ) -> None:
        """Hand over what is open, then what is new, for as long as the link lasts."""
        try:
            with self._desk.feed.listening(machine.machine) as event:
                only_new = False
                while True:
                    event.clear()
                    for offer in await self._desk.offers(machine, only_new=only_new):
                        message = pb.TaskOffer(task_id=offer.task, envelope=offer.envelope)
                        await outgoing.put(pb.ConnectResponse(task_offer=message))
                    only_new = True
                    try:
                        async with asyncio.timeout(LOOK_EVERY.total_seconds()):
                            await event.wait()
                    except TimeoutError:
                        continue
        except SteadError as error:
            await outgoing.put(error)
        except Exception:
            # A link on which nothing is offered any more would look as good as any other.
            log.exception("offers_failed", machine=machine.machine)
            await outgoing.put(SteadError("something went wrong inside the controller"))


async def _first(requests: AsyncIterator[pb.ConnectRequest]) -> pb.Hello:
    try:
        async with asyncio.timeout(SILENCE_S):
            request = await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        raise InvalidError("a link begins with Hello") from None
    if request.WhichOneof("message") != "hello":
        raise InvalidError("a link begins with Hello")
    return request.hello


def _greeting(hello: pb.Hello) -> Greeting:
    if len(hello.sealing_key) not in {0, 32} or len(hello.sealing_proof) not in {0, 32}:
        raise InvalidError("a sealing key and its proof have 32 bytes each")
    return Greeting(hello.hostname, hello.agent_version, hello.sealing_key, hello.sealing_proof)


def _stream_name(stream: int) -> str:
    try:
        name = pb.OutputStream.Name(stream)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidError(f"{stream} is not an output stream") from None
    if name == "OUTPUT_STREAM_UNSPECIFIED":
        raise InvalidError("output says which stream it was printed to")
    return name.removeprefix("OUTPUT_STREAM_").lower()
