"""Which machines hold a link right now, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import update

from controller import clock
from controller.db.database import Database
from controller.db.schema import machines
from protocol.identity import MachineIdentity


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a machine says of itself when it makes a link."""

    hostname: str
    agent_version: str
    sealing_key: bytes
    sealing_proof: bytes


@dataclass(slots=True)
class Presence:
    """One link per machine: a newer one supersedes the older."""

    db: Database
    _links: dict[str, asyncio.Event] = field(default_factory=dict)

    @asynccontextmanager
    async def linked_as(
        self, machine: MachineIdentity, greeting: Greeting
    ) -> AsyncIterator[asyncio.Event]:
        """Count the machine as linked inside the block; the event means: superseded."""
        await self._record(machine, greeting)
        superseded = asyncio.Event()
        if older := self._links.get(machine.machine):
            older.set()
        self._links[machine.machine] = superseded
        try:
            yield superseded
        finally:
            if self._links.get(machine.machine) is superseded:
                del self._links[machine.machine]

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
