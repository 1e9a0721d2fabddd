"""Whether a journal can be relied on, for those who only look."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.tasks.entry import JournalError
from agent.tasks.record import decode_line, is_cut_short


def find_damage(path: Path) -> JournalError | None:
    """Look through a journal that a running agent may be writing, and change nothing."""
    offset = 0
    try:
        with path.open("rb") as file:
            for line in file:
                decode_line(line)
                offset += len(line)
    except (ValueError, msgspec.DecodeError) as error:
        if path.stat().st_size > offset + len(line) or not offset or not is_cut_short(line):
            return JournalError(f"{path} is damaged at byte {offset}: {error}")
    except OSError as error:
        return JournalError(f"{path} cannot be read: {error.strerror}")
    return None if offset else JournalError(f"{path} is empty")
