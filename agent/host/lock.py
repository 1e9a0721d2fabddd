"""Locks that end with the process that holds them: one agent per home, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.host.descriptor import OURS, pread, pwrite, take_lock
from protocol.errors import Code, SteadError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for the block; LOCKED names the process that has it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | OURS, 0o600)
    try:
        if not take_lock(number):
            holder = pread(number, 32, 0).decode(errors="replace").strip() or "unknown"
            raise SteadError(
                f"an agent is running in {path.parent} already, as process {holder}; stop it "
                "first, or choose another --home",
                code=Code.LOCKED,
            )
        os.ftruncate(number, 0)
        pwrite(number, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(number)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with the same path, then run it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | OURS, 0o600)
    try:
        take_lock(number, wait=True)
        yield
    finally:
        os.close(number)


def holder_of(path: Path) -> int | None:
    """The process that holds the lock; None when nobody does."""
    try:
        number = os.open(path, os.O_RDWR | OURS)
    except FileNotFoundError:
        return None
    try:
        if take_lock(number, shared=True):
            return None
        said = pread(number, 32, 0).strip()
        return int(said) if said.isdigit() else None
    finally:
        os.close(number)
