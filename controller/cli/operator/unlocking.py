"""Have the ssh-agent unlock a connection, for the calls that do more than look."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.rpc.authorisation import only_looks
from protocol.attached import Metadata
from protocol.codec import encode_unlock, to_ms
from protocol.identity import key_hash
from protocol.unlock import GOOD_FOR, METADATA_KEY, Unlock, unlock_bytes

if TYPE_CHECKING:
    from controller.cli.operator.connection import Connection


class Unlocking:
    """What the operator's key says of the connection's; it is asked for once in a while."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._said = b""
        self._renew_at: datetime | None = None

    def of(self, method: str) -> Metadata:
        """What a call of this method takes along."""
        return () if only_looks(method) else ((METADATA_KEY, self._word()),)

    def _word(self) -> bytes:
        now = clock.now()
        if self._renew_at is None or now >= self._renew_at:
            connection = self._connection
            until = to_ms(now + GOOD_FOR)
            data = unlock_bytes(key_hash(connection.key_here.public_key()), until)
            shown = connection.certificate.public_bytes(Encoding.DER)
            self._said = encode_unlock(Unlock(shown, until, connection.sign(data)))
            self._renew_at = now + GOOD_FOR / 2
        return self._said
