"""A machine whose files are watched by a real watcher."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from agent.backup.backed_up import BackupReport
from agent.backup.run import EVERYTHING, Backup
from agent.backup.select.places import normalise
from agent.backup.select.pseudo import PSEUDO
from agent.backup.tree.place import Memory
from agent.host.files import read_if_there
from agent.watch.evidence import Handover, decode_drained
from agent.watch.watcher import Bounds, Watcher
from protocol.selection import NO_COMMANDS, Commands, Rules
from protocol.vault.chunk import Opener
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine

PATIENCE_S = 20.0


class WatchedMachine(Machine):
    """`stop` its watcher at the end."""

    def __init__(self, home: Path, bounds: Bounds | None = None) -> None:
        super().__init__(home)
        self.bounds = bounds
        self.off = home / "watch.off"
        self._tasks = 0
        self.watcher = self.start_watcher()

    def start_watcher(self, off: frozenset[bytes] = frozenset()) -> Watcher:
        watcher = Watcher(
            normalise([bytes(self.files)]),
            cookies=self.memory.path / "watch",
            own=bytes(self.memory.path),
            pseudo=PSEUDO,
            off=off,
            bounds=self.bounds,
        )
        watcher.start()
        return watcher

    def stop(self) -> None:
        self.watcher.stop()

    def handed(self) -> Handover:
        self._tasks += 1
        return self.watcher.hand_over(f"ts_{self._tasks}").result(PATIENCE_S)

    def run(
        self,
        handed: Handover | None = None,
        *,
        racy_ns: int = 0,
        paths: list[bytes] | None = None,
        rules: Rules = EVERYTHING,
        commands: Commands = NO_COMMANDS,
    ) -> BackupReport:
        """Back up by what was watched, and let the watcher forget what is committed."""
        import random

        report = Backup(
            paths or [bytes(self.files)],
            who=WHO,
            vault=self.vault,
            memory=self.memory,
            seed=random.Random(7),
            progress=self.said.append,
            patience_s=5.0,
            racy_ns=racy_ns,
            handed=handed or self.handed(),
            off=self.off,
            rules=rules,
            commands=commands,
        ).run()
        self.settle()
        return report

    def run_beside_a_walk(self, commands: Commands = NO_COMMANDS) -> BackupReport:
        """Back up by what was watched; a full walk from the same state makes the same tree."""
        copied = self.home / "copied"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(self.memory.path, copied)
        other = Machine(self.home, copy.deepcopy(self.vault))
        other.memory = Memory(copied)
        full = other.back_up(commands=commands)
        report = self.run(commands=commands)
        below = bytes(self.files).lstrip(b"/")
        ours = list(TreeReader(Opener(WHO.secret), self.vault.get).below(report.root, below))
        theirs = list(TreeReader(Opener(WHO.secret), other.vault.get).below(full.root, below))
        assert ours == theirs
        assert report.root[2:] == full.root[2:]
        made, walked = self.vault.points[-1][0], other.vault.points[-1][0]
        assert made.totals.directories == walked.totals.directories
        return report

    def settle(self) -> None:
        data = read_if_there(self.memory.drained)
        drained = None if data is None else decode_drained(data)
        if drained is not None:
            self.watcher.forget(drained.generation, drained.number)
