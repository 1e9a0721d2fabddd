"""The tenants' recovery keys on an operator's machine: they never go anywhere else."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.authority.durable import make_directory, replace_durably, write_durably
from protocol.errors import Code, SteadError
from protocol.ids import TenantId, check_id
from protocol.vault.epochs import TenantKeys, decode_tenant_keys, encode_tenant_keys
from protocol.vault.keys import KEY_BYTES, TenantKey, decode_tenant_key, encode_tenant_key


@dataclass(frozen=True, slots=True)
class Keyring:
    """A directory with a file `TENANT.key` of mode 0600 for every tenant, newest key first."""

    path: Path

    def load(self, tenant: TenantId) -> TenantKeys:
        """A tenant's keys; PRECONDITION when this profile has none."""
        file = self._file(tenant)
        try:
            return decode_tenant_keys(file.read_bytes())
        except FileNotFoundError:
            raise SteadError(
                f"this profile has no key of the tenant {tenant} ({file} is not there); an "
                "operator who has it can hand it over with `stead tenant key share`",
                code=Code.PRECONDITION,
            ) from None

    def has(self, tenant: TenantId) -> bool:
        """Whether this profile has a key of a tenant."""
        return self._file(tenant).exists()

    def save(self, tenant: TenantId, keys: TenantKeys) -> Path:
        """Write a tenant's keys durably; ALREADY_EXISTS when there are some."""
        make_directory(self.path)
        file = self._file(tenant)
        try:
            write_durably(file, encode_tenant_keys(keys))
        except FileExistsError:
            raise SteadError(f"{file} is there already", code=Code.ALREADY_EXISTS) from None
        return file

    def replace(self, tenant: TenantId, keys: TenantKeys) -> Path:
        """Write a tenant's keys durably, also where there are some; none may get lost."""
        if not self.has(tenant):
            return self.save(tenant, keys)
        lost = set(self.load(tenant).keys) - set(keys.keys)
        assert not lost, "a recovery key is never dropped"
        file = self._file(tenant)
        replace_durably(file, encode_tenant_keys(keys))
        return file

    def prepare(self, tenant: TenantId) -> TenantKey:
        """The key that shall follow: drawn, and durable, before anybody is told of it.

        The same one until it was adopted.
        """
        file = self._prepared(tenant)
        # It is there when an earlier call did not come to its end.
        with suppress(FileExistsError):
            write_durably(file, encode_tenant_key(new_tenant_key()))
        return decode_tenant_key(file.read_bytes())

    def is_prepared(self, tenant: TenantId, public: bytes) -> bool:
        """Whether this is the public half of a key that was prepared and not adopted."""
        return self._prepared(tenant).exists() and (
            self.prepare(tenant).secret.recovery_public == public
        )

    def adopt(self, tenant: TenantId) -> TenantKeys:
        """Make the prepared key the newest, now that it is in force."""
        keys = self.load(tenant).followed_by(self.prepare(tenant))
        self.replace(tenant, keys)
        self._prepared(tenant).unlink()
        return keys

    def _prepared(self, tenant: TenantId) -> Path:
        return self.path / f"{check_id('tn', tenant)}.next"

    def _file(self, tenant: TenantId) -> Path:
        return self.path / f"{check_id('tn', tenant)}.key"


def new_tenant_key() -> TenantKey:
    """Draw a recovery key."""
    return TenantKey(os.urandom(KEY_BYTES))
