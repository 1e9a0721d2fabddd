"""Which machines hold a link right now, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

from sqlalchemy import update

from controller import clock
from controller.db.database import Database
from controller.db.schema import machines
from protocol.ceiling import Ceiling
from protocol.identity import MachineIdentity


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a machine says of itself when it makes a link."""

    hostname: str
    agent_version: str
    sealing_key: bytes
    sealing_proof: bytes


class Parting(Enum):
    """Why the controller's side ends a link."""

    SUPERSEDED = "superseded"
    DRAINING = "draining"


@dataclass(slots=True)
class Presence:
    """One link per machine: a newer one supersedes the older."""

    db: Database
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    """What machines that are linked said last of their own settings."""
    _links: dict[str, asyncio.Future[Parting]] = field(default_factory=dict)
    _draining: bool = False
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def linked_as(
        self, machine: MachineIdentity, greeting: Greeting
    ) -> AsyncIterator[asyncio.Future[Parting]]:
        """Count the machine as linked inside the block; the future says when to part."""
        await self._record(machine, greeting)
        parting: asyncio.Future[Parting] = asyncio.get_running_loop().create_future()
        if older := self._links.get(machine.machine):
            _settle(older, Parting.SUPERSEDED)
        self._links[machine.machine] = parting
        if self._draining:
            _settle(parting, Parting.DRAINING)
        try:
            yield parting
        finally:
            if self._links.get(machine.machine) is parting:
                del self._links[machine.machine]
                self.ceilings.pop(machine.machine, None)
            if not self._links:
                self._empty.set()

    async def drain(self, within: timedelta) -> None:
        """Part from every machine, and wait for that, but not for ever."""
        self._draining = True
        for parting in self._links.values():
            _settle(parting, Parting.DRAINING)
        if self._links:
            self._empty.clear()
            async with _at_most(within):
                await self._empty.wait()

    def __len__(self) -> int:
        return len(self._links)

    def linked(self, machine: str) -> bool:
        """True while the machine holds a link."""
        return machine in self._links

    def count(self, of: Collection[str]) -> int:
        """How many of these machines hold a link."""
        return sum(machine in self._links for machine in of)

    async def _record(self, machine: MachineIdentity, greeting: Greeting) -> None:
        now = clock.now()
        await self.db.write(
            lambda c: (
                c.execute(
                    update(machines)
                    .where(machines.c.id == machine.machine, machines.c.tenant_id == machine.tenant)
                    .values(
                        last_seen_at=now,
                        hostname=greeting.hostname[:255],
                        agent_version=greeting.agent_version[:64],
                        sealing_key=greeting.sealing_key,
                        sealing_proof=greeting.sealing_proof,
                    )
                ).rowcount
            )
        )


def _settle(parting: asyncio.Future[Parting], reason: Parting) -> None:
    if not parting.done():
        parting.set_result(reason)


@asynccontextmanager
async def _at_most(time: timedelta) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(time.total_seconds()):
            yield
    except TimeoutError:
        return
