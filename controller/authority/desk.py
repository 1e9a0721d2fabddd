"""The enrollment desk: runs enrollments and renewals, and keeps account of the refused."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from controller import clock
from controller.audit.log import INSTALLATION, append
from controller.authority import enrollment
from controller.authority.authority import Authority
from controller.authority.enrollment import Application, Enrolled
from controller.authority.failures import Failures, Refusals
from controller.db.database import Database
from controller.db.schema import tenants
from protocol.errors import SteadError
from protocol.identity import MachineIdentity


class Desk:
    """See the module."""

    def __init__(
        self, db: Database, authority: Authority, rekeyed: Callable[[MachineIdentity], None]
    ) -> None:
        """`rekeyed` is told of every clone that became a machine of its own, and waits."""
        self._rekeyed = rekeyed
        self._db = db
        self._authority = authority
        self._failures = Failures()

    async def enroll(self, application: Application) -> Enrolled:
        """See `enrollment.enroll`."""

        def act(connection: Connection) -> Enrolled:
            return enrollment.enroll(connection, self._authority, application, clock.now())

        try:
            return await self._db.write(act)
        except SteadError as error:
            await self._note(error)
            raise

    async def renew(
        self, *, certificate: bytes, requested_at_ms: int, signature: bytes
    ) -> tuple[bytes, ...]:
        """See `enrollment.renew`."""

        def act(connection: Connection) -> tuple[bytes, ...]:
            return enrollment.renew(
                connection,
                self._authority,
                certificate=certificate,
                requested_at_ms=requested_at_ms,
                signature=signature,
                now=clock.now(),
            )

        try:
            return await self._db.write(act)
        except SteadError as error:
            await self._note(error)
            raise

    async def rekey(
        self,
        *,
        certificate: bytes,
        requested_at_ms: int,
        signature: bytes,
        signing_request: bytes,
        holder: bytes,
        hostname: str,
        agent_version: str,
    ) -> Enrolled:
        """See `enrollment.rekey`."""

        def act(connection: Connection) -> Enrolled:
            return enrollment.rekey(
                connection,
                self._authority,
                certificate=certificate,
                requested_at_ms=requested_at_ms,
                signature=signature,
                signing_request=signing_request,
                holder=holder,
                hostname=hostname,
                agent_version=agent_version,
                now=clock.now(),
            )

        try:
            made = await self._db.write(act)
        except SteadError as error:
            await self._note(error)
            raise
        if made.waiting:
            self._rekeyed(made.identity)
        return made

    async def close(self) -> None:
        """Write down what was counted and not written yet."""
        for refusals in self._failures.rest():
            await self._write(refusals)

    async def _note(self, error: SteadError) -> None:
        tenant = getattr(error, "tenant", None)
        refusals = self._failures.note(tenant, error.code, clock.now())
        if refusals is not None:
            await self._write(refusals)

    async def _write(self, refusals: Refusals) -> None:
        def act(connection: Connection) -> None:
            known = connection.scalar(select(tenants.c.id).where(tenants.c.id == refusals.tenant))
            tenant = known or INSTALLATION
            body = {"counts": refusals.counts}
            append(connection, tenant, "controller", "enrollments_refused", body, clock.now())

        await self._db.write(act)
