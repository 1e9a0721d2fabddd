"""Take a list of the root's, and have nobody believed any more whom it names."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from controller import clock
from controller.authority import operators, revocations
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.jobs.feed import Feed
from controller.jobs.progress import cancel_all_of
from protocol.codec import read_revocations
from protocol.identity import OperatorIdentity


class Revoking:
    """What a list means is durable first, then it counts for calls, then machines are told."""

    def __init__(self, db: Database, trust: Trust, feed: Feed) -> None:
        self._db = db
        self._trust = trust
        self._feed = feed

    async def revoke(self, names: Iterable[str], data: bytes, *, by: str) -> None:
        """Revoke these operators and all whom the list names; `data` may be empty for no list.

        Their open jobs are cancelled, and calls of the operators and of machines whose
        certificates are of a distrusted authority end. Raises NOT_FOUND for an operator who
        is not known here, and what `revocations.take` raises.
        """
        actor, now = f"operator/{by}", clock.now()

        def act(connection: Connection) -> tuple[list[OperatorIdentity], list[str]]:
            wanted = set(names)
            if data:
                root = self._trust.root
                revocations.take(connection, data, root=root, actor=actor, now=now)
                named = revocations.names_in(read_revocations(data, root))
                wanted |= operators.known_among(connection, named)
            gone = [
                operators.revoke(connection, name, actor=actor, now=now) for name in sorted(wanted)
            ]
            cancelled = [
                job for one in gone for job in cancel_all_of(connection, one.name, by, now)
            ]
            return gone, cancelled

        revoked, cancelled = await self._db.write(act)
        if data:
            self._trust.revocations = data
            self._trust.distrust(read_revocations(data, self._trust.root).distrusted)
            self._feed.wake(revocations.TOPIC)
        for one in revoked:
            self._trust.revoke(one)
        for job in cancelled:
            self._feed.wake(job)
