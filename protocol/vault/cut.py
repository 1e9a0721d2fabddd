"""Decide where content is cut into chunks, by the content itself (FastCDC).

The gear table is seeded per tenant, so that the lengths of chunks do not tell a
stranger which public file they belong to. Where the cuts fall depends on the content
from the last cut on, never on how it was fed.
"""

from __future__ import annotations

from typing import Final, Protocol

import pyfastcdc

from protocol.errors import Code, InvalidError, SteadError
from protocol.vault.chunk import MAX_PLAIN_BYTES, Buffer
from protocol.vault.sizes import Sizes

_MAX_SEED: Final = (1 << 63) - 1
_NORMALIZED: Final = 1


class Cut(Protocol):
    """Something that cuts content; `Cutter` is the one that the format names."""

    def cut(self, buffer: Buffer, *, final: bool) -> list[int]:
        """The ends of the chunks in `buffer`, ascending; see `Cutter.cut`."""


class Cutter:
    """Cuts content with FastCDC, normalisation level 1. Keeps no state between calls."""

    def __init__(self, gear_seed: int, min_bytes: int, avg_bytes: int, max_bytes: int) -> None:
        """`gear_seed` is 1 to 2**63 - 1, see `VaultSecret.gear_seed`.

        Raises `InvalidError` for impossible sizes, and `SteadError` with UNSUPPORTED when
        the compiled extension of pyfastcdc is missing: cutting without it takes hours.
        """
        if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
            raise SteadError(
                "the compiled part of pyfastcdc is missing on this machine; install the "
                "package that was built for this system",
                code=Code.UNSUPPORTED,
            )
        if not 0 < gear_seed <= _MAX_SEED or max_bytes > MAX_PLAIN_BYTES:
            raise InvalidError("a gear seed is 1 to 2**63 - 1, and a chunk at most 16 MiB")
        self.sizes = Sizes(min_bytes, avg_bytes, max_bytes)
        try:
            self._cdc = pyfastcdc.FastCDC(
                avg_size=avg_bytes,
                min_size=min_bytes,
                max_size=max_bytes,
                normalized_chunking=_NORMALIZED,
                seed=gear_seed,
            )
        except ValueError as error:
            raise InvalidError(f"content cannot be cut to these sizes: {error}") from error

    def cut(self, buffer: Buffer, *, final: bool) -> list[int]:
        """The ends of the chunks in `buffer`, which begins where the last chunk ended.

        When more content follows (`final` is false), what lies behind the last end is not
        decided yet: give it again, with more behind it. With `final` the last end is the
        end of the buffer. Feed several `max_bytes` at a time: the rest is read twice.
        """
        if not buffer:
            return []
        ends: list[int] = []
        total, longest = len(buffer), self.sizes.max_bytes
        for chunk in self._cdc.cut_buf(buffer):
            end = chunk.offset + chunk.length
            if end == total and not final and chunk.length < longest:
                break
            ends.append(end)
        return ends
