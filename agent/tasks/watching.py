"""Keep a watcher on the backup set, and give each run what was watched since the last.

What is handed over lies in a file that the task's request names: a worker is a process of
its own, and what changed may be more than fits on a line. Nothing here is needed for a
backup; whatever fails, the run walks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.config import AgentHome
from agent.host import log
from agent.host.files import make_private_directory, read_if_there
from agent.tasks.standing import KeptSet, load_set
from protocol.action import Action, RunBackup
from protocol.errors import SteadError
from protocol.ids import TaskId

if TYPE_CHECKING:
    from agent.watch.watcher import Watcher

PATIENCE: Final = timedelta(minutes=2)
"""So long a run waits for what was watched, before it walks."""


class Watching:
    """Watches what the backup set names, as far as it runs by itself."""

    def __init__(self, home: AgentHome) -> None:
        self._home = home
        self._watcher: Watcher | None = None
        self._followed: tuple[tuple[bytes, ...], frozenset[bytes]] | None = None
        self._paths: tuple[bytes, ...] = ()

    @property
    def _cache(self) -> Path:
        return self._home.cache / "backup"

    async def keep(self, look: timedelta) -> None:
        """Follow the backup set until cancelled."""
        try:
            while True:
                self.follow()
                await asyncio.sleep(look.total_seconds())
        finally:
            self.stop()

    def follow(self) -> None:
        """Watch what the set names now; nothing when there is none."""
        try:
            kept = load_set(self._home)
            self._follow(kept if self._home.load_settings().watch else None)
        except (SteadError, OSError) as error:
            self.stop()
            log.warning("watch_not_begun", reason=str(error))

    def stop(self) -> None:
        """Watch nothing any more."""
        if self._watcher is not None:
            self._watcher.stop()
        self._watcher = self._followed = None

    def _follow(self, kept: KeptSet | None) -> None:
        if kept is None or not kept.paths or not kept.schedule:
            self.stop()
            return
        # Only for those who use it: an agent without a backup set stays small.
        from agent.backup.select.places import normalise
        from agent.backup.select.pseudo import PSEUDO
        from agent.watch.switched_off import load_off, off_since
        from agent.watch.watcher import Watcher

        wanted = (kept.paths, off_since(load_off(self._home.watch_off), kept.set_at))
        if wanted == self._followed:
            return
        self.stop()
        paths, off = wanted
        watcher = Watcher(
            normalise(paths),
            cookies=self._cache / "watch",
            own=bytes(self._cache),
            pseudo=PSEUDO,
            off=off,
        )
        watcher.start()
        self._watcher, self._followed, self._paths = watcher, wanted, paths

    @asynccontextmanager
    async def handed_over(self, task: TaskId, action: Action) -> AsyncIterator[str]:
        """The file for this task, as a path; empty when there is none."""
        file = self._cache / f"handover.{task}"
        try:
            yield await self._hand_over(task, action, file)
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            self._settle()

    async def _hand_over(self, task: TaskId, action: Action, file: Path) -> str:
        if not isinstance(action, RunBackup):
            return ""
        self.follow()
        watcher = self._watcher
        if watcher is None or (action.paths and set(action.paths) != set(self._paths)):
            return ""
        from agent.watch.evidence import encode_handover

        try:
            answer = asyncio.wrap_future(watcher.hand_over(task))
            handed = await asyncio.wait_for(answer, PATIENCE.total_seconds())
            self._write(file, encode_handover(handed))
        except (TimeoutError, asyncio.CancelledError, OSError) as error:
            if isinstance(error, asyncio.CancelledError) and not watcher.has_ended:
                raise
            log.warning("watch_not_handed_over", reason=str(error))
            return ""
        return str(file)

    def _write(self, file: Path, data: bytes) -> None:
        make_private_directory(self._cache)
        file.write_bytes(data)

    def _settle(self) -> None:
        """Let the watcher forget what is in a committed restore point."""
        if self._watcher is None:
            return
        from agent.watch.evidence import decode_drained

        with suppress(OSError, SteadError):
            data = read_if_there(self._cache / "drained")
            drained = None if data is None else decode_drained(data)
            if drained is not None:
                self._watcher.forget(drained.generation, drained.number)
