"""Read from several pipes at once, in pieces as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO

_PIECE_BYTES = 65536

if sys.platform == "win32":
    import queue
    import threading

    def pieces(
        pipes: Sequence[IO[bytes]], left: Callable[[], float]
    ) -> Iterator[tuple[int, bytes]]:
        """The number of the pipe and what came from it, until all have ended.

        `left` is the seconds to wait for more, and raises when there are none. Windows waits
        for no pipe, so each has a thread that does.
        """
        came: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

        def listen(which: int, pipe: IO[bytes]) -> None:
            while True:
                piece = os.read(pipe.fileno(), _PIECE_BYTES)
                came.put((which, piece))
                if not piece:
                    return

        for which, pipe in enumerate(pipes):
            threading.Thread(target=listen, args=(which, pipe), daemon=True).start()
        ended = 0
        while ended < len(pipes):
            try:
                which, piece = came.get(timeout=left())
            except queue.Empty:
                continue
            if piece:
                yield which, piece
            else:
                ended += 1

else:
    import selectors

    def pieces(
        pipes: Sequence[IO[bytes]], left: Callable[[], float]
    ) -> Iterator[tuple[int, bytes]]:
        """The number of the pipe and what came from it, until all have ended.

        `left` is the seconds to wait for more, and raises when there are none.
        """
        with selectors.DefaultSelector() as selector:
            for which, pipe in enumerate(pipes):
                selector.register(pipe, selectors.EVENT_READ, which)
            while selector.get_map():
                for key, _ in selector.select(left()):
                    piece = os.read(key.fd, _PIECE_BYTES)
                    if piece:
                        yield key.data, piece
                    else:
                        selector.unregister(key.fileobj)
