"""Prove that a sealing key belongs to a machine of the tenant.

Whoever orders a restore seals references to the machine's sealing key, which the
controller passes on. The proof is a keyed hash by a key that the tenant's machines
and operators derive from their convergence secret and the controller has not got, so
it cannot put a key of its own in place. Pure.
"""

from __future__ import annotations

import hmac

from blake3 import blake3

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, check_id
from protocol.vault.keys import VaultSecret

SEALING_KEY_BYTES = 32
_CONTEXT = "stead sealing proof v1"


def sealing_proof(secret: VaultSecret, machine: MachineId, sealing_public: bytes) -> bytes:
    """BLAKE3, keyed, over machine id, a NUL and the X25519 public key: 32 bytes."""
    if len(sealing_public) != SEALING_KEY_BYTES:
        raise InvalidError(f"a sealing key has {SEALING_KEY_BYTES} bytes")
    key = blake3(secret.convergence, derive_key_context=_CONTEXT).digest()
    message = check_id("mc", machine).encode() + b"\0" + sealing_public
    return blake3(message, key=key).digest()


def check_sealing_proof(
    secret: VaultSecret, machine: MachineId, sealing_public: bytes, proof: bytes
) -> None:
    """Raise BAD_SIGNATURE unless the proof is this machine's for this key."""
    if not hmac.compare_digest(sealing_proof(secret, machine, sealing_public), proof):
        raise SteadError(
            f"the sealing key shown for {machine} is not proven to be that machine's; nothing "
            "was sealed to it",
            code=Code.BAD_SIGNATURE,
        )
