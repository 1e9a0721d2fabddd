"""Sign what a backup has made: the record that a controller commits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from agent.backup.send.vault import Session
from agent.backup.skipped import SkippedList
from agent.backup.who import Who
from protocol.vault.node import Root
from protocol.vault.point import (
    Contents,
    RestorePoint,
    Skipped,
    Totals,
    seal_contents,
    sign_point,
)

_LISTED: Final = 200


def signed_record(
    who: Who,
    session: Session,
    *,
    point: str,
    rules: bytes,
    paths: Iterable[bytes],
    detector: str,
    started_at: datetime,
    root: Root,
    totals: Totals,
    skipped: SkippedList,
) -> bytes:
    """The envelope of a restore point, its contents sealed to the tenant and perhaps to itself."""
    listed = tuple(Skipped(one.path, one.reason) for one in skipped.kept[:_LISTED])
    recipients = [("tenant", who.secret.recovery_public)]
    if who.own_key is not None:
        recipients.append(("machine", who.own_key))
    contents = Contents(root, tuple(b"/" + path for path in paths), listed)
    sealed = tuple(
        seal_contents(
            contents,
            key,
            kind=kind,
            tenant=who.tenant,
            machine=who.machine,
            point=point,
        )
        for kind, key in recipients
    )
    made = RestorePoint(
        id=point,
        tenant=who.tenant,
        machine=who.machine,
        started_at=started_at,
        rules=rules,
        detector=detector,
        scope="tenant",
        root=root.reference.id,
        sealed=sealed,
        totals=totals,
        previous=session.parent_hash or None,
        agent=who.release,
    )
    return sign_point(made, who.key, who.chain)
