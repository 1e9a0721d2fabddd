"""The agent is killed at every system call between an order's arrival and its acknowledged outcome.

Whatever the moment: the order's effect happens at most once, the task ends in one
outcome, and "succeeded" is never said of what did not happen.

One agent after the other: strace is attached to a running one just before the order comes,
and looks at the main thread, which is where everything is decided. Which calls there are is
seen with a first order that goes through; strace counts each kind of call by itself.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol.action import Action, RunProgram, RunScript
from protocol.codec import encode_envelope, encode_order
from protocol.identity import MachineIdentity
from protocol.ids import OrderId, TaskId
from protocol.order import Order, sign
from protocol.outcome import OutcomeState
from tests.fakes.link_server import LinkServer, Realm, Visit, fresh, new_task
from tests.integration.agent_process import AgentProcess

AT_LEAST = 60
"""Fewer calls than an order ever takes: less would be a matrix of something else."""
_CALL = re.compile(r"[0-9]*\s*([a-z][a-z0-9_]*)\(")
NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)


@dataclass
class Handed:
    """An order on its way, and the file to which its program adds a line."""

    order: OrderId
    task: TaskId
    envelope: bytes
    effects: Path
    repeatable: bool

    def happened(self) -> int:
        """How often the program ran."""
        return self.effects.read_text().count("done\n") if self.effects.exists() else 0


@dataclass
class World:
    """An agent that is killed again and again, and the controller that it is linked to."""

    directory: Path
    realm: Realm
    server: LinkServer
    agent: AgentProcess
    machine: MachineIdentity
    pid: int = 0
    visit: Visit | None = None
    handed: list[Handed] = field(default_factory=list)

    async def begin(self, *before: str) -> None:
        """Start the agent, and wait until it is linked unless it is traced."""
        self.pid = await self.agent.start(*before)
        if not before:
            self.visit = await self.server.visit()

    def order(self, kind: str) -> Handed:
        """A new order whose effect can be counted."""
        now = datetime.now(UTC).replace(microsecond=0)
        effects = self.directory / f"effects-{len(self.handed)}"
        words = f"echo done | tee -a {effects}"
        program: Action = RunProgram(("sh", "-c", words))
        order = Order(
            id=OrderId(fresh("or")),
            tenant=self.machine.tenant,
            machines=(self.machine.machine,),
            action=RunScript("sh", words.encode()) if kind == "script" else program,
            issued_at=now,
            not_before=now,
            deliver_by=now + timedelta(hours=1),
            timeout=timedelta(minutes=1),
            repeatable=kind == "repeatable",
        )
        ann = self.realm.operator()
        signed = sign(encode_order(order), key=ann.key, certificate=ann.certificate)
        handed = Handed(order.id, new_task(), encode_envelope(signed), effects, order.repeatable)
        self.handed.append(handed)
        return handed

    async def through(self, handed: Handed) -> bool:
        """Offer an order and wait for its acknowledged outcome or the agent's end; was it that?"""
        assert self.visit is not None
        self.visit.offer(handed.task, handed.envelope)
        acknowledged = asyncio.create_task(self.acknowledged(handed))
        dying = asyncio.create_task(self.agent.ended())
        await asyncio.wait({acknowledged, dying}, return_when=asyncio.FIRST_COMPLETED)
        for work in (acknowledged, dying):
            work.cancel()
        await asyncio.gather(acknowledged, dying, return_exceptions=True)
        return not dying.cancelled()

    async def acknowledged(self, handed: Handed) -> None:
        """Wait until the journal says that the controller has the outcome."""
        await self.server.outcome_of(handed.task)
        line = f'"kind":"acknowledged","order":"{handed.order}"'.encode()
        async with asyncio.timeout(30):
            while line not in self.agent.home.journal.read_bytes():
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """Every order so far acted at most once and came to one end that is true."""
        for handed in self.handed:
            ends = {end.state for end in self.server.outcomes if end.task == handed.task}
            assert len(ends) == 1, (handed, ends)
            [end] = ends
            happened = handed.happened()
            if handed.repeatable:
                assert (end, happened >= 1) == (OutcomeState.SUCCEEDED, True)
                continue
            assert end in {OutcomeState.SUCCEEDED, OutcomeState.INDETERMINATE}, handed
            assert happened == 1 or (end is OutcomeState.INDETERMINATE and not happened), handed


@asynccontextmanager
async def furnished(directory: Path) -> AsyncIterator[World]:
    """A world whose agent is linked; everything is checked once more at its end."""
    realm = Realm()
    agent = AgentProcess(directory / "machine")
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address)
        world = World(directory, realm, server, agent, machine)
        try:
            await world.begin()
            yield world
            # A restart tells nothing new of what was acknowledged.
            await agent.stop()
            await world.begin()
            world.check()
        finally:
            if agent.alive:
                await agent.stop(signal.SIGKILL)


@dataclass(frozen=True)
class Call:
    """The `number`th system call of its kind."""

    name: str
    number: int

    def kill(self) -> tuple[str, ...]:
        """How strace is told to kill there."""
        return ("-e", f"inject={self.name}:signal=KILL:when={self.number}")


def calls_in(trace: Path) -> list[Call]:
    """The calls that strace saw, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if named := _CALL.match(line):
            seen[named[1]] += 1
            found.append(Call(named[1], seen[named[1]]))
    return found


@asynccontextmanager
async def traced(pid: int, *words: str, into: str = "/dev/null") -> AsyncIterator[None]:
    """Have strace look at a process's main thread for the block.

    Raises `ProcessLookupError` when it is dead already.
    """
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-o", into, *words, "-p", str(pid)), stderr=asyncio.subprocess.PIPE
    )
    assert tracer.stderr is not None
    said = await tracer.stderr.readline()
    if b"No such process" in said:
        await tracer.wait()
        raise ProcessLookupError(pid)
    assert b"attached" in said
    try:
        yield
    finally:
        if tracer.returncode is None:
            tracer.terminate()
        await tracer.wait()


async def calls_of(world: World, kind: str) -> list[Call]:
    """The calls that an order takes that goes through."""
    trace = world.directory / "calls"
    async with traced(world.pid, into=str(trace)):
        assert not await world.through(world.order(kind))
    return calls_in(trace)


async def killed_at(world: World, call: Call, kind: str) -> bool:
    """Hand over an order, kill the agent at a call, let it come back; was it killed at all?"""
    try:
        async with traced(world.pid, *call.kill()):
            handed = world.order(kind)
            killed = await world.through(handed)
    except ProcessLookupError:
        # The kill before came when the journal had just said that all was over.
        await world.agent.ended()
        await world.begin()
        return await killed_at(world, call, kind)
    if killed:
        await world.begin()
        assert not await world.through(handed)
    world.check()
    return killed


async def killed_at_each(world: World, kind: str, *, step: int = 1) -> tuple[int, int]:
    """Kill an agent at every call, or at every `step`th: how many calls, and how many died."""
    calls = (await calls_of(world, kind))[::step]
    return len(calls), sum([await killed_at(world, call, kind) for call in calls])


@NEEDS_STRACE
@pytest.mark.parametrize(("kind", "step"), [("program", 17), ("script", 41), ("repeatable", 41)])
async def test_killed_at_sampled_calls_an_order_acts_at_most_once(
    kind: str, step: int, tmp_path: Path
) -> None:
    async with furnished(tmp_path) as world:
        _, killed = await killed_at_each(world, kind, step=step)
        assert killed


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["program", "script", "repeatable"])
async def test_killed_at_every_call_an_order_acts_at_most_once(kind: str, tmp_path: Path) -> None:
    async with furnished(tmp_path) as world:
        calls, killed = await killed_at_each(world, kind)
        unknown = {one.task for one in world.server.outcomes if one.state == "indeterminate"}
        print(f"{kind}: {calls} calls, {killed} kills, {len(unknown)} indeterminate")
        assert killed >= AT_LEAST


async def settled(world: World, words: Sequence[str], into: str = "/dev/null") -> bool:
    """Kill an agent with an order, have strace start the next one; was that killed as well?"""
    handed = world.order("program")
    assert world.visit is not None
    world.visit.offer(handed.task, handed.envelope)
    begun = f'"kind":"started","order":"{handed.order}"'.encode()
    async with asyncio.timeout(30):
        while begun not in world.agent.home.journal.read_bytes():
            await asyncio.sleep(0)
    await world.agent.stop(signal.SIGKILL)
    home = world.agent.home
    # What has to do with the journal and the output alone: importing takes thousands of calls.
    places = [word for place in (home.journal, home.output) for word in ("-P", str(place))]
    await world.agent.start("strace", "-qq", "-o", into, *places, *words)
    visiting = asyncio.create_task(world.server.visit())
    dying = asyncio.create_task(world.agent.ended())
    await asyncio.wait({visiting, dying}, return_when=asyncio.FIRST_COMPLETED)
    killed = dying.done()
    for work in (visiting, dying):
        work.cancel()
    await asyncio.gather(visiting, dying, return_exceptions=True)
    if not killed:
        await world.agent.stop()
    await world.begin()
    assert not await world.through(handed)
    world.check()
    return killed


async def killed_again_at_each(world: World, *, step: int = 1) -> tuple[int, int]:
    """Kill the next agent at each call of its settling, or at every `step`th."""
    trace = world.directory / "calls"
    assert not await settled(world, (), into=str(trace))
    calls = calls_in(trace)[::step]
    return len(calls), sum([await settled(world, call.kill()) for call in calls])


@NEEDS_STRACE
async def test_killed_again_while_it_settles_an_order_acts_at_most_once(tmp_path: Path) -> None:
    async with furnished(tmp_path) as world:
        _, killed = await killed_again_at_each(world, step=9)
        assert killed


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.timeout(900)
async def test_killed_again_at_every_call_that_settles_an_order_acts_at_most_once(
    tmp_path: Path,
) -> None:
    async with furnished(tmp_path) as world:
        calls, killed = await killed_again_at_each(world)
        print(f"{calls} calls, {killed} kills while an order was settled")
        assert killed
