"""Who holds a machine's identity: what an agent shows beside Hello.

`controller.authority.ratchet` says what it is good for. The bytes on the wire are
`protocol.codec`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

METADATA_KEY = "stead-holder-bin"
"""The metadata of a call to `Connect` that carries a serialized `Holder`."""

HARDWARE_BYTES = 32
LONGEST_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Holder:
    """The newest token that was made durable, and a hash of the hardware; both may be empty."""

    token: bytes = b""
    hardware: bytes = b""
