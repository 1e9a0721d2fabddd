"""What this operator has seen of the audit logs: what a later log is held against.

The chain alone cannot tell that entries are missing at its end, or that all of it was
written anew. Whoever has seen a head can. The checkpoint that was signed for it is kept with
it, since it proves to others what the head proves to its owner alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from controller.audit.chain import Head
from controller.authority.durable import make_directory, replace_durably
from protocol.checkpoint import Checkpoint, decode_checkpoint, decode_signed
from protocol.errors import InvalidError, SteadError
from protocol.ids import check_id

INSTALLATION_FILE = "installation"
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class SeenHeads:
    """A directory with files for each log, named by the tenant's id.

    `.head` is the last head; `.checkpoint` is the newest signed checkpoint of that log;
    `.told` is one that did not fit.
    """

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

    def heads(self, log: str) -> set[Head]:
        """All that was seen of a log: the last head, and that of the checkpoint kept."""
        found = {one for one in (self.load(log),) if one is not None}
        file = self._file(log, "checkpoint")
        if file.exists():
            kept = _checkpoint(file, file.read_bytes())
            found.add(Head(kept.size, kept.head))
        return found

    def save(self, log: str, head: Head, signed: bytes | None) -> None:
        """Keep a head, and what was signed for it, in place of those before; durably."""
        make_directory(self.path)
        if signed is not None:
            replace_durably(self._file(log, "checkpoint"), signed)
        replace_durably(self._file(log), f"{head.seq}:{head.hash.hex()}\n".encode())

    def keep_evidence(self, log: str, signed: bytes) -> Path:
        """Keep a signed checkpoint that did not fit; the first one stays."""
        make_directory(self.path)
        file = self._file(log, "told")
        if not file.exists():
            replace_durably(file, signed)
        return file

    def signed(self) -> list[tuple[Path, bytes]]:
        """All signed checkpoints that are kept, with their files; INVALID for a damaged one."""
        files = (*self.path.glob("*.checkpoint"), *self.path.glob("*.told"))
        found = [(file, file.read_bytes()) for file in sorted(files)]
        for file, data in found:
            _checkpoint(file, data)
        return found

    def _file(self, log: str, kind: str = "head") -> Path:
        # A tenant's id comes from the controller, which must not choose a file here.
        name = check_id("tn", log) if log else INSTALLATION_FILE
        return self.path / f"{name}.{kind}"

    def logs(self) -> set[str]:
        """The logs of which a head was seen."""
        names = {file.stem for file in self.path.glob("*.head")}
        return {"" if name == INSTALLATION_FILE else name for name in names}


def _checkpoint(file: Path, data: bytes) -> Checkpoint:
    try:
        return decode_checkpoint(decode_signed(data).body)
    except SteadError as error:
        raise InvalidError(
            f"{file} is damaged: {error}; put it aside, and the head beside it goes on counting"
        ) from error


def parse_heads(text: str) -> tuple[Head, ...]:
    """What `--head` may hold: one head, or nothing."""
    found = parse_head(text)
    return () if found is None else (found,)


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
