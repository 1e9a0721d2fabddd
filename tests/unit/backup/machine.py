"""A machine that backs up into a vault in memory, and restores from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.backup.backed_up import BackupReport
from agent.backup.cut.sealers import Sealers
from agent.backup.restore.belonging import Owners
from agent.backup.restore.bounds import Bounds
from agent.backup.restore.durable import Written
from agent.backup.restore.extra import Removals
from agent.backup.restore.flow import Flow
from agent.backup.restore.placed import Done
from agent.backup.restore.preview import Preview
from agent.backup.restore.write import Restore
from agent.backup.run import EVERYTHING, Backup
from agent.backup.send.control import Control
from agent.backup.send.vault import Vault
from agent.backup.tree.place import Memory
from agent.backup.who import Who
from protocol.ids import MachineId, TenantId
from protocol.selection import NO_COMMANDS, Commands, Rules
from protocol.vault.chunk import Opener
from protocol.vault.keys import TenantKey
from protocol.vault.node import Root
from protocol.vault.reader import TreeReader
from tests.fakes.memory_vault import MemoryVault

TENANT_KEY = TenantKey(bytes(range(32)))


def certified(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "machine")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


KEY = ec.generate_private_key(ec.SECP256R1())
WHO = Who(
    TenantId("tn_00000000000000000000000001"),
    MachineId("mc_00000000000000000000000001"),
    TENANT_KEY.secret,
    KEY,
    [certified(KEY)],
    "0.1.0",
)


class Machine:
    """`files` is what is backed up; everything is below `home`."""

    def __init__(self, home: Path, vault: Vault | None = None) -> None:
        self.home = home
        self.files = home / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.memory = Memory(home / "memory")
        self.vault: Any = vault if vault is not None else MemoryVault()
        self.said: list[Mapping[str, Any]] = []
        self._targets = 0
        self.removals = Removals()

    def back_up(
        self,
        *paths: Path | bytes,
        patience_s: float = 5.0,
        racy_ns: int = 0,
        sealers: Sealers | None = None,
        limit_upload: int = 0,
        control: Control | None = None,
        commands: Commands = NO_COMMANDS,
        rules: Rules = EVERYTHING,
        top: bytes = b"/",
    ) -> BackupReport:
        wanted = paths or (self.files,)
        return Backup(
            [path if isinstance(path, bytes) else bytes(path) for path in wanted],
            who=WHO,
            vault=self.vault,
            memory=self.memory,
            seed=random.Random(7),
            progress=self.said.append,
            patience_s=patience_s,
            racy_ns=racy_ns,
            sealers=sealers,
            limit_upload=limit_upload,
            control=control,
            commands=commands,
            rules=rules,
            top=top,
        ).run()

    def restore(
        self,
        root: Root,
        path: bytes | None = None,
        target: Path | None = None,
        *,
        overwrite: bool = False,
        owners: Owners = Owners.NAME,
        flags: bool = False,
        verify: bool = False,
        bounds: Bounds | None = None,
    ) -> tuple[Path, Done]:
        """The restored directory or file, and what was done."""
        if target is None:
            self._targets += 1
            target = self.home / f"target{self._targets}"
        target.mkdir(exist_ok=True)
        wanted = path if path is not None else bytes(self.files).lstrip(b"/")
        restore = self._restore(
            root,
            wanted,
            target,
            overwrite=overwrite,
            owners=owners,
            flags=flags,
            verify=verify,
            bounds=bounds,
        )
        done = restore.run()
        self.removals = restore.removals
        return target / Path(str(wanted.rpartition(b"/")[2], "utf-8", "surrogateescape")), done

    def preview(self, root: Root, target: Path) -> Preview:
        """What overwriting `target` would do."""
        return self._restore(root, bytes(self.files).lstrip(b"/"), target, overwrite=True).preview()

    def restoring(
        self,
        root: Root,
        target: Path,
        *,
        overwrite: bool = False,
        written: Written | None = None,
        bounds: Bounds | None = None,
        own: frozenset[tuple[int, int]] = frozenset(),
        flow: Flow | None = None,
    ) -> Restore:
        """A restore of all files that has not begun."""
        path = bytes(self.files).lstrip(b"/")
        return self._restore(
            root,
            path,
            target,
            overwrite=overwrite,
            written=written,
            bounds=bounds,
            own=own,
            flow=flow,
        )

    def _restore(
        self,
        root: Root,
        path: bytes,
        target: Path,
        *,
        overwrite: bool,
        owners: Owners = Owners.NAME,
        flags: bool = False,
        verify: bool = False,
        written: Written | None = None,
        bounds: Bounds | None = None,
        own: frozenset[tuple[int, int]] = frozenset(),
        flow: Flow | None = None,
    ) -> Restore:
        return Restore(
            TreeReader(Opener(WHO.secret), self.vault.get).subtree(root, path),
            strip=path.rpartition(b"/")[0],
            target=bytes(target),
            overwrite=overwrite,
            vault=self.vault,
            secret=WHO.secret,
            seed=random.Random(7),
            progress=self.said.append,
            patience_s=5.0,
            owners=owners,
            flags=flags,
            verify=verify,
            written=written,
            bounds=bounds,
            own=own,
            flow=flow,
        )
