"""Take a machine's identity and all that it has done off its disk, before the disk is copied.

What stays is what an administrator has set, and a token if one is given: with it each copy
enrolls itself when its agent first starts; see `agent.link.first`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentHome
from agent.host.files import sync_directory, write_atomically
from protocol.errors import Code, SteadError
from protocol.token import decode_token


@dataclass(frozen=True, slots=True)
class Generalizing:
    """What goes and what stays, by path, in the order in which it goes."""

    goes: tuple[Path, ...]
    stays: tuple[Path, ...]


def plan_generalizing(home: AgentHome) -> Generalizing:
    """Look at the agent's directory; PRECONDITION when there is none.

    Whatever is not known to stay goes, so that nothing of a later release is forgotten. The
    key goes first: a machine without one is not enrolled, however far this came.
    """
    if not home.path.is_dir():
        raise SteadError(
            f"there is no agent in {home.path}; name its directory with --home",
            code=Code.PRECONDITION,
        )
    stays = {home.settings, home.lock}
    found = sorted(home.path.iterdir(), key=lambda path: (path != home.key, path.name))
    return Generalizing(
        tuple(path for path in found if path not in stays),
        tuple(path for path in found if path in stays),
    )


def apply_generalizing(home: AgentHome, plan: Generalizing, token: str = "") -> None:
    """Remove what goes, and put the token there; INVALID, and nothing done, for a bad one."""
    if token:
        decode_token(token)
    for path in plan.goes:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path == home.key:
            sync_directory(home.path)
    sync_directory(home.path)
    if token:
        write_atomically(home.first_token, token.encode() + b"\n")
