"""`stead-agent` on a computer of the test's choice.

    python -m tests.faults.on_hardware NAME ARGUMENT...

What it takes for its hardware is made of the name; all else is the real one.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import agent.link.ratchet
from agent.cli import main


def hardware_named(name: str) -> bytes:
    """32 bytes that stand for a computer."""
    return hashlib.sha256(name.encode()).digest()


if __name__ == "__main__":
    computer = hardware_named(sys.argv[1])

    def hardware(system: Path = Path()) -> bytes:
        return computer

    agent.link.ratchet.hardware = hardware  # type: ignore[attr-defined]
    del sys.argv[1]
    main()
