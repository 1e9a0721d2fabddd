"""The tenants' recovery keys on an operator's machine: they never go anywhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import Code, SteadError
from protocol.ids import TenantId, check_id
from protocol.vault.keys import KEY_BYTES, TenantKey, decode_tenant_key, encode_tenant_key


@dataclass(frozen=True, slots=True)
class Keyring:
    """A directory with a file `TENANT.key` of mode 0600 for every tenant."""

    path: Path

    def load(self, tenant: TenantId) -> TenantKey:
        """A tenant's key; PRECONDITION when this profile has not got it."""
        file = self._file(tenant)
        try:
            return decode_tenant_key(file.read_bytes())
        except FileNotFoundError:
            raise SteadError(
                f"this profile has no key of the tenant {tenant} ({file} is not there); an "
                "operator who has it can export it with `stead tenant key export`",
                code=Code.PRECONDITION,
            ) from None

    def has(self, tenant: TenantId) -> bool:
        """Whether this profile has a tenant's key."""
        return self._file(tenant).exists()

    def save(self, tenant: TenantId, key: TenantKey) -> Path:
        """Write a tenant's key durably; refuse to replace one."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(tenant)
        try:
            number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise SteadError(f"{file} is there already", code=Code.ALREADY_EXISTS) from None
        with os.fdopen(number, "wb") as opened:
            opened.write(encode_tenant_key(key))
            opened.flush()
            os.fsync(number)
        directory = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return file

    def _file(self, tenant: TenantId) -> Path:
        return self.path / f"{check_id('tn', tenant)}.key"


def new_tenant_key() -> TenantKey:
    """Draw the recovery key of a new tenant."""
    return TenantKey(os.urandom(KEY_BYTES))
