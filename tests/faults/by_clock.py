"""`stead-agent` with another clock: python -m tests.faults.by_clock FILE ARGUMENT...

The file says how many seconds that clock is ahead, and is read anew each time. The TLS below
goes by the real clock, which no test may set.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import agent.host.clock
from agent.cli import main

if __name__ == "__main__":
    file = Path(sys.argv[1])

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(file.read_text()))

    agent.host.clock.now = now
    del sys.argv[1]
    main()
