"""The restore points among stored objects, opened with nothing but a recovery key.

Without a controller there is no list of machines to hold a record against. What can be
checked is: the record's own signature, that it lies where it says it belongs, that the key
opens it, and, where the root's certificate is at hand, that it signed the machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from controller.vault.keys import PointKey
from protocol.errors import InvalidError, SteadError
from protocol.identity import MachineIdentity, believe, identity_of
from protocol.vault.epochs import TenantKeys, decode_tenant_keys, with_links
from protocol.vault.keys import (
    TenantKey,
    VaultSecret,
    machine_scope,
    parse_paper_key,
)
from protocol.vault.point import (
    Contents,
    PointSignatureError,
    RestorePoint,
    decode_envelope,
    open_contents,
    verify_point,
)
from recovery.objects import Problem


@dataclass(frozen=True, slots=True)
class Recoverable:
    """A restore point that the key opens, and the secret that its chunks were made with."""

    point: RestorePoint
    contents: Contents
    secret: VaultSecret

    @property
    def id(self) -> str:
        """Of the restore point."""
        return self.point.id

    @property
    def received_at(self) -> datetime | None:
        """When it was begun: when it was received stood in the database."""
        return self.point.started_at


def load_keys(file: Path) -> TenantKeys:
    """Recovery keys from a file: as `stead` keeps them, or one as it is written on paper."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidError(f"{file} cannot be read: {(error.strerror or '').lower()}") from error
    if data.startswith(b"STK"):
        return decode_tenant_keys(data)
    try:
        return TenantKeys((parse_paper_key(data.decode("ascii")),))
    except UnicodeDecodeError:
        raise InvalidError(
            f"{file} is no recovery key: neither a TENANT.key nor the text of a paper key"
        ) from None


def every_key(files: Sequence[Path], links: Sequence[Path]) -> list[TenantKey]:
    """The keys of files, and all older ones that the links beside the packs lead to."""
    linked = [link.read_bytes() for link in links]
    found = [with_links(load_keys(file), linked) for file in files]
    return list(dict.fromkeys(key for keys in found for key in keys.keys))


def recoverable(
    listed: Iterable[tuple[PointKey, Path]],
    keys: Sequence[TenantKey],
    root: x509.Certificate | None,
) -> tuple[list[Recoverable], list[Problem]]:
    """What the keys open, newest first, and what is left out with the reason."""
    found: dict[str, Recoverable] = {}
    problems: list[Problem] = []
    for key, file in listed:
        try:
            if key.point not in found:
                found[key.point] = _opened(key, file.read_bytes(), keys, root)
        except (SteadError, OSError, ValueError) as error:
            problems.append(Problem(key.point, str(error)))
    newest_first = sorted(found.values(), key=lambda one: (one.point.started_at, one.id))
    return newest_first[::-1], problems


def _opened(
    key: PointKey, record: bytes, keys: Sequence[TenantKey], root: x509.Certificate | None
) -> Recoverable:
    envelope = decode_envelope(record)
    point = verify_point(envelope)
    leaf, *above = [x509.load_der_x509_certificate(der) for der in envelope.chain]
    signer = identity_of(leaf)
    if root is not None:
        signer = believe(leaf, root=root, issuing=above, now=point.started_at)
    if (point.tenant, point.machine, point.id) != key or not isinstance(signer, MachineIdentity):
        raise PointSignatureError("the record is another machine's or restore point's")
    if (signer.tenant, signer.machine) != (point.tenant, point.machine):
        raise PointSignatureError("another machine signed it than the one it names")
    problem: SteadError = InvalidError("no key was given")
    for one in keys:
        try:
            contents = open_contents(one.recovery_private, point)
        except SteadError as error:
            problem = error
            continue
        secret = (
            machine_scope(one.secret, point.machine) if point.scope == "machine" else one.secret
        )
        return Recoverable(point, contents, secret)
    raise problem
