"""What is said of processes that are not hit."""

from __future__ import annotations

from protocol.errors import DeniedError, NotFoundError


def needed(pid: int) -> DeniedError:
    """Nobody could reach this machine without it."""
    return DeniedError(
        f"process {pid} is init or the agent, without which nobody could reach this machine"
    )


def another(pid: int, found: str, identity: str) -> NotFoundError:
    """Its number is another's by now."""
    return NotFoundError(f"process {pid} is another one by now ({found}, not {identity[:40]})")
