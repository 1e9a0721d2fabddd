"""Identities that this machine had before a controller said that it is a copy.

A controller may lie, or be in a stranger's hands. So a machine that takes a new identity on
its word loses nothing by it: key, sealing key, secrets, journal, backup set and standing
orders of the one before stay in a folder of their own, and whoever administers the machine
takes them back. How often that happens is bounded, so that no controller fills a disk or
leads a machine ever further away from itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.config import AgentHome
from agent.host.files import make_private_directory, sync_directory, write_atomically
from agent.link.enroll import finish
from protocol.errors import Code, NotFoundError, SteadError
from protocol.ids import MachineId, check_id

MOST = 3
"""So many former identities are kept; with them a machine takes no other one by itself."""

_PARTS = (
    "key",
    "chain",
    "root",
    "sealing_key",
    "vault_secret",
    "vault_order",
    "ratchet",
    "journal",
    "backup_set",
    "backup_runs",
    "drill_runs",
    "standing",
)
"""What is an identity's own. Settings are the administrator's, and what the root signed counts
for the tenant."""


@dataclass(frozen=True, slots=True)
class Former:
    """An identity that is kept, and since when it is a former one."""

    machine: MachineId
    since: datetime
    home: AgentHome


def former_identities(home: AgentHome) -> list[Former]:
    """What is kept, the newest first."""
    found = [
        Former(machine, datetime.fromtimestamp(path.stat().st_mtime, UTC), AgentHome(path))
        for machine, path in _folders(home)
    ]
    return sorted(found, key=lambda one: one.since, reverse=True)


def check_room(home: AgentHome) -> None:
    """Raise PRECONDITION when this machine has had enough identities."""
    kept = former_identities(home)
    if len(kept) >= MOST:
        raise SteadError(
            f"this machine has taken a new identity {len(kept)} times since a controller said that "
            "it is a copy, and takes no other one; see `stead-agent identity ls`",
            code=Code.PRECONDITION,
        )


def keep_former(home: AgentHome, machine: MachineId) -> None:
    """Keep what this machine is now; durable when this returns, and nothing else has changed.

    The very files are kept, not copies: what a task that still runs adds to the journal is in
    it. Raises STORE_FULL.
    """
    aside, place = home.former / ".new", home.former / machine
    try:
        make_private_directory(home.former)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        _link_parts(home, AgentHome(aside))
        # Of an attempt that was cut, while the identity is the present one still.
        shutil.rmtree(place, ignore_errors=True)
        aside.replace(place)
        os.utime(place)
        sync_directory(home.former)
        sync_directory(home.path)
    except OSError as error:
        raise SteadError(
            f"the identity of {machine} cannot be kept in {home.former}: {error.strerror}; look "
            "at free space and permissions",
            code=Code.STORE_FULL,
        ) from error


def take_back(home: AgentHome, machine: str, present: MachineId) -> None:
    """Be a former machine again; what this one is now is kept in its turn.

    The agent must not run. A cut at any moment leaves one identity or the other, whole.
    Raises NOT_FOUND, and PRECONDITION for a machine of another installation, whose controller
    `agent.toml` does not name.
    """
    former = _named(home, machine)
    if former.home.root.read_bytes() != home.root.read_bytes():
        raise SteadError(
            f"{machine} belongs to another installation than this machine does now",
            code=Code.PRECONDITION,
        )
    keep_former(home, present)
    shutil.rmtree(home.enrolling, ignore_errors=True)
    make_private_directory(home.enrolling)
    new = AgentHome(home.enrolling)
    _link_parts(former.home, new)
    # Last: with it the set is whole; see `agent.link.enroll`.
    write_atomically(new.settings, home.settings.read_bytes())
    finish(home)
    shutil.rmtree(former.home.path)
    sync_directory(home.former)


def forget_former(home: AgentHome, machine: str) -> None:
    """Remove a former identity with its keys, for good. Raises NOT_FOUND."""
    former = _named(home, machine)
    shutil.rmtree(former.home.path)
    sync_directory(home.former)


def _named(home: AgentHome, machine: str) -> Former:
    for one in former_identities(home):
        if one.machine == machine:
            return one
    raise NotFoundError(
        f"no identity {machine[:40]!r} is kept here; `stead-agent identity ls` lists them"
    )


def _folders(home: AgentHome) -> Iterator[tuple[MachineId, Path]]:
    if not home.former.is_dir():
        return
    for path in home.former.iterdir():
        if not path.name.startswith("."):
            yield MachineId(check_id("mc", path.name)), path


def _link_parts(source: AgentHome, target: AgentHome) -> None:
    for part in _PARTS:
        there: Path = getattr(source, part)
        if there.is_dir():
            getattr(target, part).mkdir(mode=0o700)
            for file in there.iterdir():
                _link(file, getattr(target, part) / file.name)
            sync_directory(getattr(target, part))
        elif there.exists():
            _link(there, getattr(target, part))
    sync_directory(target.path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A file system that knows no second name: nothing is added to what is kept there.
        write_atomically(target, source.read_bytes())
