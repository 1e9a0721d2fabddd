"""What a backup remembers between two runs, file by file.

All of it may be deleted at any time: the next backup then reads everything and sends
only what the vault does not hold.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent.backup.tree.state import Previous, find_previous, load_head
from agent.host import clock
from agent.watch.evidence import Drained, Evidence, encode_drained
from protocol.errors import Code, SteadError

_NODES: Final = "nodes."
_ENTRY_BYTES: Final = 4096
"""Looking at an entry takes about as long as reading so many bytes."""


class Run(msgspec.Struct, frozen=True):
    """A backup that was begun and is not known to be committed."""

    point: str
    rules: bytes


class Expected(msgspec.Struct, frozen=True):
    """What the last restore point of the same rules held: how much the next will find."""

    rules: bytes
    entries: int
    size: int

    def left(self, entries: int, size: int) -> float | None:
        """The share of the work that is left, by entries and bytes; None beyond the end.

        >>> Expected(b"", 1000, 1 << 30).left(500, 1 << 29)
        0.5
        """
        done, whole = size + entries * _ENTRY_BYTES, self.size + self.entries * _ENTRY_BYTES
        return 1 - done / whole if done < whole else None


@dataclass(frozen=True, slots=True)
class Memory:
    """A folder of the agent's cache."""

    path: Path

    @property
    def state(self) -> Path:
        """The state of the restore point that was acknowledged last."""
        return self.path / "state"

    @property
    def next_state(self) -> Path:
        """The state of the restore point that is being made."""
        return self.path / "state.next"

    def previous(self, newest: str, rules: bytes) -> Previous:
        """The state of the machine's newest restore point, as the controller names it."""
        waiting = load_head(self.next_state)
        if waiting is not None and waiting.header.point == newest:
            # Its commit was acknowledged to a run that did not live to hear of it.
            self.next_state.replace(self.state)
        self.next_state.unlink(missing_ok=True)
        self._tidy()
        return find_previous(self.state, newest, rules)

    def fresh_nodes(self) -> Path:
        """A name for a file of nodes that nobody uses."""
        numbers = [int(path.suffix[1:] or 0) for path in self.path.glob(_NODES + "*")]
        return self.path / f"{_NODES}{max(numbers, default=0) + 1}"

    def _tidy(self) -> None:
        """Remove the files of nodes that no state needs."""
        head = load_head(self.state)
        for path in self.path.glob(_NODES + "*"):
            if head is None or path.name != head.file:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other backups of this machine out; LOCKED when one is under way."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SteadError(
                    "another backup of this machine is under way; wait for it", code=Code.LOCKED
                ) from None
            yield
        finally:
            os.close(lock)

    @property
    def drained(self) -> Path:
        """Which handover of which watcher is in the last restore point."""
        return self.path / "drained"

    def is_interrupted(self) -> bool:
        """Whether a run was begun and is not known to be committed."""
        return (self.path / "run").exists()

    def take_up(self, rules: bytes) -> Run:
        """The run that was interrupted, when it had the same rules, or a new one."""
        try:
            run = msgspec.msgpack.decode((self.path / "run").read_bytes(), type=Run)
        except (OSError, ValueError):
            return self.start(rules)
        return run if run.rules == rules else self.start(rules)

    def start(self, rules: bytes) -> Run:
        """Note a new run, so that another process can take it up; or not, on a full disk."""
        run = Run(clock.new_id("rp"), rules)
        temporary = self.path / "run.new"
        with suppress(OSError):
            temporary.write_bytes(msgspec.msgpack.encode(run))
            temporary.replace(self.path / "run")
        return run

    def expected(self, rules: bytes) -> Expected | None:
        """What the last backup found; None when there was none with these rules."""
        try:
            found = msgspec.msgpack.decode((self.path / "expected").read_bytes(), type=Expected)
        except (OSError, ValueError):
            return None
        return found if found.rules == rules else None

    def committed(self, found: Expected, *, adopt: bool, evidence: Evidence | None = None) -> None:
        """The run's restore point exists: its state counts from now on, if it is sound."""
        with suppress(OSError):
            (self.path / "expected").write_bytes(msgspec.msgpack.encode(found))
        if adopt:
            self.next_state.replace(self.state)
            if evidence is not None:
                drained = Drained(evidence.generation, evidence.number)
                self.drained.write_bytes(encode_drained(drained))
        else:
            self.state.unlink(missing_ok=True)
            self.next_state.unlink(missing_ok=True)
        self._tidy()
        (self.path / "run").unlink(missing_ok=True)
