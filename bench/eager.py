"""`stead` with a vault that gives room back at once: python -m bench.eager ARGUMENT...

Nothing forgotten can be had back, and what nobody needs is dropped by the next
collection. For measuring what otherwise takes nine days.
"""

from __future__ import annotations

import sys
from datetime import timedelta

from controller.cli.main import run
from controller.vault.collect.condemn import Terms
from controller.vault.vault import Vault

_AT_ONCE = timedelta()
TERMS = Terms(undo=_AT_ONCE, grace=_AT_ONCE, young=_AT_ONCE)


def main() -> None:
    """Change the terms that a vault has by itself."""
    defaults = Vault.__init__.__kwdefaults__
    assert defaults is not None
    defaults["terms"] = TERMS
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
