"""`stead` with a vault that lives by another clock: python -m tests.faults.clocked FILE ARGUMENT...

The file says how many seconds that clock is ahead, and is read anew each time. Links and
certificates go by the real one, as those of everybody else.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.cli.main import run
from controller.vault.vault import Vault


def main(file: Path, arguments: list[str]) -> None:
    """Change the clock that a vault has by itself."""

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(file.read_text()))

    defaults = Vault.__init__.__kwdefaults__
    assert defaults is not None
    defaults["now"] = now
    sys.exit(run(arguments))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
