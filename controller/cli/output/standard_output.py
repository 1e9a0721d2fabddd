"""Write bytes to standard output, and say what is wrong with it."""

from __future__ import annotations

import os
import sys

from protocol.errors import Code, SteadError


def write_out(piece: bytes) -> None:
    """Write a piece; an empty one writes what waits. STORE_FULL when it takes no more.

    A reader that went away is no fault to report: `BrokenPipeError` ends the command.
    """
    try:
        sys.stdout.buffer.write(piece)
        if not piece:
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What still waits has nowhere to go; Python would try, and complain, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        raise SteadError(
            f"standard output takes no more: {(error.strerror or str(error)).lower()}; what "
            "was written is not the whole file",
            code=Code.STORE_FULL,
        ) from error
