"""What a linked machine is told without having asked: lists, policies and checkpoints.

Each by a worker of its own, for as long as the link lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from controller.audit.witnesses import Witnesses
from controller.authority import revocations
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.jobs import policies
from controller.jobs.feed import Feed
from protocol.errors import SteadError
from protocol.identity import MachineIdentity
from protocol.v1 import link_pb2 as pb

log = structlog.get_logger()

REVOCATIONS = 2
POLICY = 5
CHECKPOINTS = 6
"""From which revision of the protocol on an agent understands each."""

CHECKPOINTS_FIRST_S = 60.0
"""A machine that has come is told the logs' checkpoints at a random moment within this."""
CHECKPOINTS_EVERY_S = 600.0
"""So that a day of them costs a machine less than 0.3 MB at worst; see ADR 56."""

Outgoing = asyncio.Queue[pb.ConnectResponse | SteadError | None]
"""What is to be said; an error ends the link as one, None ends it well."""


class Telling:
    """See the module. `chance` spreads what all machines are told."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        trust: Trust,
        witnesses: Witnesses,
        chance: Callable[[], float],
    ) -> None:
        self._db = db
        self._feed = feed
        self._trust = trust
        self._witnesses = witnesses
        self._chance = chance

    def begin(
        self,
        machine: MachineIdentity,
        revision: int,
        watched: asyncio.Future[dict[str, int]],
        outgoing: Outgoing,
    ) -> list[asyncio.Task[None]]:
        """Begin what an agent of this revision understands; the caller ends it."""
        workers = []
        if revision >= REVOCATIONS:
            workers.append(asyncio.create_task(self._revoked(outgoing)))
        if revision >= POLICY:
            workers.append(asyncio.create_task(self._policy(machine, outgoing)))
        if revision >= CHECKPOINTS:
            workers.append(asyncio.create_task(self._logs(machine, watched, outgoing)))
        return workers

    async def _revoked(self, outgoing: Outgoing) -> None:
        """Say who is revoked, now and whenever that changes."""
        with self._feed.listening(revocations.TOPIC) as event:
            told = b""
            while True:
                event.clear()
                newest = self._trust.revocations
                if newest != told:
                    told = newest
                    changed = pb.RevocationsChanged(revocations=newest)
                    await outgoing.put(pb.ConnectResponse(revocations_changed=changed))
                await event.wait()

    async def _policy(self, machine: MachineIdentity, outgoing: Outgoing) -> None:
        """Say what the root ruled for the machine's tenant, now and whenever that changes."""
        with self._feed.listening(policies.topic(machine.tenant)) as event:
            told = b""
            while True:
                event.clear()
                try:
                    newest = await self._db.read(lambda c: policies.kept(c, machine.tenant))
                except SteadError as error:
                    log.warning("policy_not_told", machine=machine.machine, reason=str(error))
                    newest = told
                if newest != told:
                    told = newest
                    changed = pb.PolicyChanged(policy=newest)
                    await outgoing.put(pb.ConnectResponse(policy_changed=changed))
                await event.wait()

    async def _logs(
        self, machine: MachineIdentity, watched: asyncio.Future[dict[str, int]], outgoing: Outgoing
    ) -> None:
        """Say what the audit logs are, at moments of this machine's own."""
        sizes = await watched
        told: dict[str, int] = {}
        await asyncio.sleep(self._chance() * CHECKPOINTS_FIRST_S)
        while True:
            try:
                for log_id, news in (await self._witnesses.news(machine, sizes)).items():
                    # The first word of a link is said also when nothing is new: after a
                    # controller was restored, its log may have as many entries as before.
                    if told.get(log_id) != news.size:
                        told[log_id] = sizes[log_id] = news.size
                        message = pb.CheckpointTold(checkpoint=news.signed, proof=news.proof)
                        await outgoing.put(pb.ConnectResponse(checkpoint_told=message))
            except SteadError as error:
                log.warning("checkpoints_not_told", machine=machine.machine, reason=str(error))
            await asyncio.sleep(CHECKPOINTS_EVERY_S)
