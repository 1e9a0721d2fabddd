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
from protocol.identity import OperatorIdentity, Role
from protocol.revocation import NO_REVOCATIONS


class Revoking:
    """What a list means is durable first, then it counts for calls, then machines are told."""

    def __init__(self, db: Database, trust: Trust, feed: Feed) -> None:
        self._db = db
        self._trust = trust
        self._feed = feed

    async def revoke(self, names: Iterable[str], data: bytes, *, by: str) -> None:
        """Revoke these operators and all whom the list names; `data` may be empty for no list.

        Their open jobs are cancelled, and calls of the operators and of machines whose
        certificates are of a distrusted authority end. The list may name operators who are not
        known here. Raises NOT_FOUND for such a one without a list, and what `revocations.take`
        raises.
        """
        actor, now, root = f"operator/{by}", clock.now(), self._trust.root
        listed = read_revocations(data, root) if data else NO_REVOCATIONS
        named = revocations.names_in(listed)

        def act(connection: Connection) -> tuple[list[OperatorIdentity], list[str]]:
            wanted = set(names)
            if data:
                revocations.take(connection, data, root=root, actor=actor, now=now)
                wanted = operators.known_among(connection, named)
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
            self._trust.distrust(listed.distrusted)
            self._feed.wake(revocations.TOPIC)
        known = {one.name for one in revoked}
        # Nobody here knows what those were to do, and by name alone they are let in no more.
        unknown = [
            OperatorIdentity(name, Role.AUDITOR, None) for name in named if name not in known
        ]
        for one in (*revoked, *unknown):
            self._trust.revoke(one)
        for job in cancelled:
            self._feed.wake(job)
