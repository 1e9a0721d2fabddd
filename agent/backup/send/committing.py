"""Ask for the commit until it is answered, in another session when the first one has ended."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from agent.backup.send.upload import begin_patiently, patiently
from agent.backup.send.vault import Session, Vault
from protocol.errors import Code, SteadError


def commit(
    vault: Vault,
    session: Session,
    record: bytes,
    seed: random.Random,
    *,
    patience_s: float,
    check: Callable[[Session], None],
) -> datetime:
    """When the controller received the restore point; asked again when the answer was lost.

    `check` is told the session that takes another one's place, and may raise.
    """
    try:
        return _ask(vault, session, record, seed, patience_s)
    except SteadError as error:
        if error.code is not Code.SESSION_LOST:
            raise
    # The lease ran out: the chunks are still held, so a new session can commit them.
    point = "rp_" + session.id.partition("_")[2]
    again = begin_patiently(vault, point, seed, patience_s=patience_s)
    check(again)
    return _ask(vault, again, record, seed, patience_s)


def _ask(
    vault: Vault, session: Session, record: bytes, seed: random.Random, patience_s: float
) -> datetime:
    return patiently(lambda: vault.commit(session, record), seed, patience_s=patience_s)
