"""Prove that a sealing key belongs to a machine of the tenant, and seal a secret to it.

Whoever orders a restore seals references to the machine's sealing key, which the
controller passes on. The proof is a keyed hash by a key that the tenant's machines
and operators derive from their convergence secret and the controller has not got, so
it cannot put a key of its own in place. Pure.
"""

from __future__ import annotations

import hmac

from blake3 import blake3

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, TenantId, check_id
from protocol.vault.keys import VaultSecret, decode_vault_secret, encode_vault_secret
from protocol.vault.seal import PrivateKey, binding, open_sealed, seal_to

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


def seal_secret(
    secret: VaultSecret, sealing_public: bytes, *, tenant: TenantId, machine: MachineId
) -> bytes:
    """A vault secret that only this machine can read."""
    context = binding("vault secret", tenant, machine)
    return seal_to(sealing_public, encode_vault_secret(secret), context)


def open_secret(
    key: PrivateKey, sealed: bytes, *, tenant: TenantId, machine: MachineId
) -> VaultSecret:
    """Undo `seal_secret`; `SealedError` when it was sealed to another, `InvalidError` when
    there is no secret in it.
    """
    context = binding("vault secret", tenant, machine)
    return decode_vault_secret(open_sealed(key, sealed, context))
