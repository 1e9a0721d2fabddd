"""Derive every secret of a tenant's vault from one seed, and write the seed on paper.

The operator keeps a `TenantKey`: it opens restore points. Machines get a `VaultSecret`:
it makes and checks chunks, and cannot open what only the recovery key opens. Keys are
derived with BLAKE3's key derivation mode, one context string for each purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import InvalidError

KEY_BYTES = 32
TENANT_KEY_BYTES = 40
_CHECK_BYTES = 4
_TENANT_MAGIC = b"STK\x01"
_SECRET_MAGIC = b"STS\x01"
_PAPER_VERSION = 1
_PAPER_GROUP = 5
_PAPER_DIGITS = 60
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)} | {"O": 0, "I": 1, "L": 1}


def derive(purpose: str, material: bytes) -> bytes:
    """32 bytes for one purpose from secret material."""
    return blake3(material, derive_key_context=f"stead vault v1 {purpose}").digest()


def _check(material: bytes) -> bytes:
    return derive("checksum", material)[:_CHECK_BYTES]


@dataclass(frozen=True)
class VaultSecret:
    """What a machine holds: enough to make chunks and to check them, not to open roots.

    `convergence` and `recovery_public` are 32 bytes each; the latter is an X25519 key.
    """

    convergence: bytes = field(repr=False)
    recovery_public: bytes

    def __post_init__(self) -> None:
        if len(self.convergence) != KEY_BYTES or len(self.recovery_public) != KEY_BYTES:
            raise InvalidError("a vault secret is two keys of 32 bytes; ask for it again")

    @cached_property
    def gear_seed(self) -> int:
        """Seeds the table that decides where content is cut: 63 bits, never 0."""
        return (int.from_bytes(derive("gear seed", self.convergence)[:8], "little") >> 1) or 1

    @cached_property
    def boundary_key(self) -> bytes:
        """Keys the hash that decides where tree nodes end."""
        return derive("boundary key", self.convergence)

    @cached_property
    def fingerprint_key(self) -> bytes:
        """Keys the hash by which a machine recognises plain content."""
        return derive("fingerprint key", self.convergence)


@dataclass(frozen=True)
class TenantKey:
    """The recovery key of a tenant: whoever holds it can read every backup."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise InvalidError("a recovery key is 32 bytes")

    @cached_property
    def secret(self) -> VaultSecret:
        """What the tenant's machines get."""
        return VaultSecret(
            convergence=derive("convergence secret", self.seed),
            recovery_public=self.recovery_private.public_key().public_bytes(
                Encoding.Raw, PublicFormat.Raw
            ),
        )

    @cached_property
    def recovery_private(self) -> X25519PrivateKey:
        """Opens what was sealed to `secret.recovery_public`."""
        return X25519PrivateKey.from_private_bytes(derive("recovery private key", self.seed))


def machine_scope(secret: VaultSecret, machine_id: str) -> VaultSecret:
    """The secret of one machine of a tenant whose machines must not share chunks.

    Only a holder of the tenant's secret can derive it, and nothing leads back.
    """
    material = secret.convergence + machine_id.encode()
    return VaultSecret(derive("machine scope", material), secret.recovery_public)


def encode_tenant_key(key: TenantKey) -> bytes:
    """40 bytes: magic, seed, checksum."""
    return _TENANT_MAGIC + key.seed + _check(_TENANT_MAGIC + key.seed)


def decode_tenant_key(data: bytes) -> TenantKey:
    """Read what `encode_tenant_key` wrote; `InvalidError` when it is damaged."""
    return TenantKey(_checked(data, _TENANT_MAGIC, KEY_BYTES, "recovery key"))


def encode_vault_secret(secret: VaultSecret) -> bytes:
    """72 bytes: magic, convergence secret, recovery public key, checksum."""
    material = _SECRET_MAGIC + secret.convergence + secret.recovery_public
    return material + _check(material)


def decode_vault_secret(data: bytes) -> VaultSecret:
    """Read what `encode_vault_secret` wrote; `InvalidError` when it is damaged."""
    keys = _checked(data, _SECRET_MAGIC, 2 * KEY_BYTES, "vault secret")
    return VaultSecret(keys[:KEY_BYTES], keys[KEY_BYTES:])


def _checked(data: bytes, magic: bytes, length: int, what: str) -> bytes:
    if len(data) != len(magic) + length + _CHECK_BYTES or not data.startswith(magic):
        raise InvalidError(f"this is not a {what} of this release")
    if _check(data[:-_CHECK_BYTES]) != data[-_CHECK_BYTES:]:
        raise InvalidError(f"this {what} is damaged: its checksum does not fit; use another copy")
    return data[len(magic) : -_CHECK_BYTES]


def render_paper_key(key: TenantKey) -> str:
    """The recovery key as 12 groups of 5 characters that survive handwriting.

    Crockford base 32 of a version byte, the seed, a checksum of 4 bytes and 4 zero bits.
    """
    material = bytes([_PAPER_VERSION]) + key.seed
    value = int.from_bytes(material + _check(material), "big") << 4
    digits = "".join(
        _DIGITS[value >> shift & 31] for shift in range((_PAPER_DIGITS - 1) * 5, -1, -5)
    )
    return "-".join(
        digits[start : start + _PAPER_GROUP] for start in range(0, _PAPER_DIGITS, _PAPER_GROUP)
    )


def parse_paper_key(text: str) -> TenantKey:
    """Read what `render_paper_key` wrote, forgiving case, blanks, dashes, O, I and L.

    Raises `InvalidError` that says what is wrong without repeating the key.
    """
    digits = [digit for digit in text.upper() if digit not in "-–— \t\r\n"]
    if len(digits) != _PAPER_DIGITS:
        raise InvalidError(
            f"a recovery key on paper has {_PAPER_DIGITS} characters, this has {len(digits)}"
        )
    value = 0
    for position, digit in enumerate(digits):
        if digit not in _VALUES:
            raise InvalidError(
                f"group {position // _PAPER_GROUP + 1} of the recovery key holds a character "
                "that is never used"
            )
        value = value << 5 | _VALUES[digit]
    material = (value >> 4).to_bytes(1 + KEY_BYTES + _CHECK_BYTES, "big")
    body, check = material[:-_CHECK_BYTES], material[-_CHECK_BYTES:]
    if value & 15 or _check(body) != check:
        raise InvalidError("the recovery key has a typing error: its checksum does not fit")
    if body[0] != _PAPER_VERSION:
        raise InvalidError("this recovery key was made by a later release; upgrade to read it")
    return TenantKey(body[1:])
