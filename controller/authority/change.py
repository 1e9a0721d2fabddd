"""Change the issuing authority of a running controller; see `controller.authority.rotation`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection

from controller import clock
from controller.audit.log import INSTALLATION, append
from controller.authority import rotation
from controller.authority.authority import Authority
from controller.authority.trust import Trust
from controller.config import ControllerHome
from controller.db.database import Database
from protocol.errors import Code, SteadError


class AuthorityChange:
    """One change at a time. The new authority is on the disk before it certifies anybody."""

    def __init__(
        self, home: ControllerHome, db: Database, authority: Authority, trust: Trust
    ) -> None:
        self._home = home
        self._db = db
        self._authority = authority
        self._trust = trust
        self._door = asyncio.Lock()

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """The present authority, then those before it, distrusted ones included."""
        return self._authority.believed

    def check_replaced(self, distrusted: Collection[bytes]) -> None:
        """Raise PRECONDITION when the present authority is one of these, by its key."""
        if self._authority.is_among(distrusted):
            raise SteadError(
                "this is the authority that certifies now: nobody would be believed any more; "
                "run `stead controller rotate-authority` first",
                code=Code.PRECONDITION,
            )

    @property
    def ends_at(self) -> datetime:
        """When the present authority ends."""
        return self._authority.issuing.certificate.not_valid_after_utc

    async def prepare(self) -> bytes:
        """See `rotation.prepare`."""
        async with self._door:
            return await asyncio.to_thread(rotation.prepare, self._home)

    async def install(self, der: bytes, actor: str) -> None:
        """See `rotation.install`."""
        async with self._door:
            issuer = await asyncio.to_thread(
                rotation.install,
                self._home,
                der,
                root=self._authority.root,
                believed=self._authority.believed,
                now=clock.now(),
            )
            self._authority.rotate(issuer)
            self._trust.issuing = self._authority.believed
            certificate = issuer.certificate
            await self._db.write(lambda c: note_rotation(c, certificate, actor, clock.now()))


def note_rotation(
    connection: Connection, certificate: x509.Certificate, actor: str, now: datetime
) -> None:
    """Write down that there is another authority."""
    body = {
        "serial": f"{certificate.serial_number:x}",
        "ends_at": certificate.not_valid_after_utc.isoformat(),
    }
    append(connection, INSTALLATION, actor, "authority_rotated", body, now)
