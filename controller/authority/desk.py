"""The enrollment desk: runs enrollments and renewals, and keeps account of the refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection, select

from controller import clock
from controller.audit.log import INSTALLATION, append
from controller.authority import enrollment, rekeying, renewal
from controller.authority.admission import Enrolled
from controller.authority.authority import Authority
from controller.authority.enrollment import Application
from controller.authority.failures import Failures, Refusals
from controller.db.database import Database
from controller.db.schema import tenants
from protocol.errors import SteadError
from protocol.identity import MachineIdentity

T = TypeVar("T")


class Admit(Protocol):
    """Who is told of machines that were let in."""

    def __call__(self, machine: MachineIdentity, key: bytes, *, waiting: bool) -> None:
        """`key` is `protocol.identity.key_hash` of the machine's key."""


class Desk:
    """See the module."""

    def __init__(self, db: Database, authority: Authority, admit: Admit) -> None:
        """`admit` is told of every machine that was let in, once that is durable."""
        self._admit = admit
        self._db = db
        self._authority = authority
        self._failures = Failures()

    async def enroll(self, application: Application) -> Enrolled:
        """See `enrollment.enroll`."""

        def act(connection: Connection) -> Enrolled:
            return enrollment.enroll(connection, self._authority, application, clock.now())

        return await self._admitted(act)

    async def renew(
        self, *, certificate: bytes, requested_at_ms: int, signature: bytes
    ) -> tuple[bytes, ...]:
        """See `renewal.renew`."""

        def act(connection: Connection) -> tuple[bytes, ...]:
            return renewal.renew(
                connection,
                self._authority,
                certificate=certificate,
                requested_at_ms=requested_at_ms,
                signature=signature,
                now=clock.now(),
            )

        return await self._noted(act)

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
        """See `rekeying.rekey`."""

        def act(connection: Connection) -> Enrolled:
            return rekeying.rekey(
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

        return await self._admitted(act)

    async def _admitted(self, act: Callable[[Connection], Enrolled]) -> Enrolled:
        made = await self._noted(act)
        self._admit(made.identity, made.key, waiting=made.waiting)
        return made

    async def _noted(self, act: Callable[[Connection], T]) -> T:
        """What a transaction gives; a refusal is counted."""
        try:
            return await self._db.write(act)
        except SteadError as error:
            await self._note(error)
            raise

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
