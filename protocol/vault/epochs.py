"""The recovery keys that a tenant has had: whoever holds the newest can have them all.

A tenant's key is changed when somebody who knew it shall know no more: new restore
points are made under the new key, old ones stay readable with the old one. A link is
the key before, encrypted under the key after, so that there is still one thing to keep:
the newest key. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.errors import InvalidError, NotFoundError
from protocol.vault.keys import (
    KEY_BYTES,
    TENANT_KEY_BYTES,
    TenantKey,
    decode_tenant_key,
    derive,
    encode_tenant_key,
)
from protocol.vault.point import RestorePoint, key_id

MAX_KEYS: Final = 1000
NAME_BYTES: Final = 16
LINK_BYTES: Final = 4 + 2 * NAME_BYTES + KEY_BYTES + 16
_LINK_MAGIC: Final = b"STL\x01"
_NONCE: Final = bytes(12)


@dataclass(frozen=True)
class TenantKeys:
    """A tenant's recovery keys, newest first, at least one and none twice."""

    keys: tuple[TenantKey, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys or len(set(self.keys)) != len(self.keys):
            raise InvalidError("a tenant has at least one recovery key, and none twice")
        if len(self.keys) > MAX_KEYS:
            raise InvalidError(f"a tenant has at most {MAX_KEYS} recovery keys")

    @property
    def newest(self) -> TenantKey:
        """The one that restore points are made under from now on."""
        return self.keys[0]

    def followed_by(self, key: TenantKey) -> TenantKeys:
        """These keys after a change to `key`."""
        return TenantKeys((key, *self.keys))

    def named(self, name: bytes) -> TenantKey | None:
        """The key of that name, see `name_of`; None when it is not among these."""
        return next((key for key in self.keys if name_of(key) == name), None)

    def of_point(self, point: RestorePoint) -> TenantKey:
        """The key that a restore point was made under; NOT_FOUND when it is not here."""
        names = {sealed.key for sealed in point.sealed}
        for key in self.keys:
            if name_of(key) in names:
                return key
        raise NotFoundError(
            f"restore point {point.id} was made under a recovery key that is not here; "
            "`stead tenant key ls` says which are missing"
        )


def name_of(key: TenantKey) -> bytes:
    """16 bytes that name a key without telling it: those by which restore points name it."""
    return key_id(key.secret.recovery_public)


def encode_tenant_keys(keys: TenantKeys) -> bytes:
    """The key files one after the other, newest first; of one key, its file."""
    return b"".join(map(encode_tenant_key, keys.keys))


def decode_tenant_keys(data: bytes) -> TenantKeys:
    """Read what `encode_tenant_keys` wrote; `InvalidError` when it is damaged."""
    if not data or len(data) % TENANT_KEY_BYTES or len(data) > MAX_KEYS * TENANT_KEY_BYTES:
        raise InvalidError("this is not a recovery key of this release")
    pieces = range(0, len(data), TENANT_KEY_BYTES)
    return TenantKeys(
        tuple(decode_tenant_key(data[start : start + TENANT_KEY_BYTES]) for start in pieces)
    )


def link(newer: TenantKey, older: TenantKey) -> bytes:
    """`older` for the holder of `newer`: magic, both names, the seed encrypted. 84 bytes.

    The key of the cipher is made from the newer seed and the older name, so it never
    meets a second message; and nobody without the newer key can make a link that opens.
    """
    head = _LINK_MAGIC + name_of(newer) + name_of(older)
    return head + _cipher(newer, name_of(older)).encrypt(_NONCE, older.seed, head)


def names_of_link(data: bytes) -> tuple[bytes, bytes]:
    """The names of the newer and of the older key of a link; `InvalidError` otherwise."""
    if len(data) != LINK_BYTES or not data.startswith(_LINK_MAGIC):
        raise InvalidError("this is not a link between recovery keys of this release")
    start = len(_LINK_MAGIC)
    return data[start : start + NAME_BYTES], data[start + NAME_BYTES : start + 2 * NAME_BYTES]


def open_link(newer: TenantKey, data: bytes) -> TenantKey:
    """The older key of a link; `InvalidError` when it is damaged or was made by nobody
    who holds `newer`.
    """
    name, older = names_of_link(data)
    body = len(data) - KEY_BYTES - 16
    if name == name_of(newer):
        try:
            key = TenantKey(_cipher(newer, older).decrypt(_NONCE, data[body:], data[:body]))
        except InvalidTag:
            raise _forged() from None
        if name_of(key) == older:
            return key
    raise _forged()


def with_links(keys: TenantKeys, links: Iterable[bytes]) -> TenantKeys:
    """The keys with all older ones that links lead to.

    Links of other keys and damaged ones lead nowhere; what they would have led to is then
    found missing by who needs it.
    """
    by_newer: dict[bytes, bytes] = {}
    for data in links:
        try:
            by_newer.setdefault(names_of_link(data)[0], data)
        except InvalidError:
            continue
    found = list(keys.keys)
    while len(found) < MAX_KEYS and name_of(found[-1]) in by_newer:
        try:
            older = open_link(found[-1], by_newer.pop(name_of(found[-1])))
        except InvalidError:
            break
        if older in found:
            break
        found.append(older)
    return TenantKeys(tuple(found))


def _forged() -> InvalidError:
    return InvalidError("a link between recovery keys does not open: it is damaged or forged")


def _cipher(newer: TenantKey, older: bytes) -> AESGCM:
    return AESGCM(derive("key link", newer.seed + older))
