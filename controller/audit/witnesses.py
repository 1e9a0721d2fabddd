"""What machines are told of the audit logs, and what they say about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from controller import clock
from controller.audit.alarms import Alarms, alarms_kept, replace_alarms
from controller.audit.checkpoints import newest
from controller.audit.log import INSTALLATION
from controller.audit.tree import stored_node
from controller.db.database import Database
from protocol.identity import MachineIdentity
from protocol.merkle import prove_consistency


@dataclass(frozen=True, slots=True)
class News:
    """A log's newest checkpoint, and the proof that it continues what a machine keeps."""

    size: int
    signed: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """See the module."""

    db: Database

    async def news(self, machine: MachineIdentity, sizes: Mapping[str, int]) -> dict[str, News]:
        """The newest checkpoints of the logs that a machine watches, as far as there are some.

        `sizes` are of the checkpoints that it keeps, by log.
        """

        def look(connection: Connection) -> dict[str, News]:
            found = {}
            for log in (machine.tenant, INSTALLATION):
                kept = newest(connection, log)
                if kept is None:
                    continue
                size, before = kept.checkpoint.size, sizes.get(log, 0)
                # A machine that keeps more is told so without a proof: there is none.
                proof: tuple[bytes, ...] = ()
                if before <= size:
                    proof = prove_consistency(before, size, stored_node(connection, log))
                found[log] = News(size, kept.signed, proof)
            return found

        return await self.db.read(look)

    async def alarmed(self, machine: MachineIdentity, alarms: Alarms) -> None:
        """Keep what a machine says is wrong; durable when this returns."""

        def differs(connection: Connection) -> bool:
            return alarms_kept(connection, machine.machine) != dict(alarms)

        if await self.db.read(differs):
            await self.db.write(
                lambda c: replace_alarms(c, machine.tenant, machine.machine, alarms, clock.now())
            )
