"""The heads of audit logs that this operator has seen: what a later log is held against.

The chain alone cannot tell that entries are missing at its end, or that all of it was
written anew. Whoever has seen a head can.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from controller.audit.chain import Head
from controller.authority.durable import make_directory, sync_directory
from protocol.errors import InvalidError
from protocol.ids import check_id

INSTALLATION_FILE = "installation"
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class SeenHeads:
    """A directory with a file for each log; its name is the tenant's id."""

    path: Path

    def load(self, log: str) -> Head | None:
        """The last head that was seen; None when there was none. INVALID when it is damaged."""
        file = self._file(log)
        try:
            text = file.read_bytes().decode("ascii", "replace")
        except FileNotFoundError:
            return None
        try:
            return parse_head(text.strip() or "nothing")
        except InvalidError:
            raise InvalidError(
                f"{file} is damaged: it does not hold a head; correct it from a head that you "
                "noted elsewhere, or remove it to begin anew"
            ) from None

    def save(self, log: str, head: Head) -> None:
        """Keep a head in place of the one before it, durably."""
        make_directory(self.path)
        file = self._file(log)
        temporary = file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{head.seq}:{head.hash.hex()}\n")
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
        sync_directory(self.path)

    def _file(self, log: str) -> Path:
        # A tenant's id comes from the controller, which must not choose a file here.
        name = check_id("tn", log) if log else INSTALLATION_FILE
        return self.path / f"{name}.head"

    def logs(self) -> set[str]:
        """The logs of which a head was seen."""
        names = {file.stem for file in self.path.glob("*.head")}
        return {"" if name == INSTALLATION_FILE else name for name in names}


def parse_head(text: str) -> Head | None:
    """A head as `verify` prints it; None for an empty text, INVALID otherwise.

    >>> parse_head("3:" + "00" * 32).seq
    3
    """
    if not text:
        return None
    found = _HEAD.match(text.lower())
    if found is None:
        raise InvalidError("a head is SEQ:HASH, as `stead audit verify` prints it")
    return Head(int(found[1]), bytes.fromhex(found[2]))
