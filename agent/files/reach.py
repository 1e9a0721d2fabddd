"""Open a file that an order names, for reading: none of the agent's own, nor where others point."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from protocol.errors import Code, InvalidError, NotFoundError, SteadError

if sys.platform == "win32":
    from agent.host.descriptor import ANYBODYS

    def open_file(path: Path, home: Path) -> int:
        """See below. Links are followed there: to make one takes a privilege."""
        real = Path(os.path.realpath(path))
        if real.is_relative_to(os.path.realpath(home)):
            raise SteadError(
                f"{path} is the agent's own; orders do not read there", code=Code.DENIED
            )
        try:
            if not stat.S_ISREG(real.stat().st_mode):
                raise InvalidError(f"{path} is no regular file")
            return os.open(real, os.O_RDONLY | ANYBODYS)
        except FileNotFoundError:
            raise NotFoundError(f"{path} is not there") from None
        except OSError as error:
            raise SteadError(f"{path}: {error.strerror}", code=Code.PRECONDITION) from error

else:
    from agent.files.way import open_regular, spot_at

    def open_file(path: Path, home: Path) -> int:
        """A descriptor of a regular file; see `spot_at` and `open_regular` for what is refused.

        Below `home` nothing is read.
        """
        with spot_at(os.fsencode(path), home, follow=True) as spot:
            return open_regular(spot)
