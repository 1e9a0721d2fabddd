"""Read one pack from where it lies and say whether it is what its name says.

What could not be read is not damaged: a cable, a driver or a server may be at fault, and
tomorrow the bytes are there. A pack counts as damaged when two reads, each past what
memory holds, gave the same wrong bytes, all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.store.store import ObjectMissingError, ObjectStore, StoreFailedError
from controller.vault.keys import PackKey, pack_key
from protocol.vault.pack import pack_id


class Verdict(StrEnum):
    """What was found."""

    SOUND = "sound"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Examined:
    """A verdict with its reason; `content` is what was read, all of it or nothing."""

    verdict: Verdict
    reason: str = ""
    content: bytes = b""


def examine(store: ObjectStore, named: PackKey) -> Examined:
    """Read a pack and hash it. Blocks; raises nothing that the store raises."""
    key = pack_key(*named)
    try:
        store.drop_cached(key)
        content = store.get(key)
        if pack_id(content) == named.pack:
            # Nor does a scrub push out of memory what others read.
            store.drop_cached(key)
            return Examined(Verdict.SOUND, content=content)
        store.drop_cached(key)
        again = store.get(key)
        size = store.size(key)
    except ObjectMissingError:
        return Examined(Verdict.MISSING, "the pack is missing")
    except StoreFailedError as error:
        return Examined(Verdict.UNREADABLE, str(error))
    if again != content:
        return Examined(Verdict.UNREADABLE, "two reads gave different bytes; check the disk")
    if len(content) != size:
        return Examined(
            Verdict.UNREADABLE, f"a read ended after {len(content)} of {size} bytes; check the disk"
        )
    return Examined(Verdict.DAMAGED, "its bytes are not those of its name", content)
