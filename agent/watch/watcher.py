"""Watch directories in a thread of the agent, and hand over what has changed.

Whatever might have lost an event ends a watcher's generation, and a new one begins with
the next handover: the run that it is for walks, and says why. Before a handover a file is
made, and everything that happened earlier stands before it in the queue: once its own
event has been read, nothing is left out.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Final

from agent.host import clock, log
from agent.watch import inotify
from agent.watch.cover import BrokenError, Cover
from agent.watch.evidence import Handover, Why
from agent.watch.inotify import IS_DIRECTORY, Event
from agent.watch.mounts import MountPlan, parse_mounts, plan_mounts
from agent.watch.places import Place

MAX_DIRECTORIES: Final = 300_000
RATE: Final = 20_000
"""Events a second above which the busiest subtree is watched no longer."""
_APPEARED: Final = inotify.CREATE | inotify.MOVED_TO
_LEFT: Final = inotify.DELETE | inotify.MOVED_FROM
_SELF_GONE: Final = inotify.DELETE_SELF | inotify.MOVE_SELF
_LASTING: Final = (Why.OFF, Why.UNWATCHED)
_ENDED: Final = 16
_COOKIE: Final = b"cookie-"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a watcher takes on."""

    directories: int = MAX_DIRECTORIES
    rate: int = RATE


@dataclass(slots=True)
class _Wanted:
    task: str
    answer: Future[Handover]
    cookie: bytes = b""


class Watcher:
    """Watches normalised `paths` until `stop`. `own` is never looked into.

    `cookies` is a directory for its own use. `pseudo` are types of file systems that no
    backup visits, `off` mount points where watching was switched off.
    """

    def __init__(
        self,
        paths: tuple[bytes, ...],
        *,
        cookies: Path,
        own: bytes,
        pseudo: frozenset[str],
        off: frozenset[bytes] = frozenset(),
        bounds: Bounds | None = None,
    ) -> None:
        self.paths = paths
        self.off = off
        self._cookies = cookies
        self._own = own.strip(b"/")
        self._pseudo = pseudo
        self._bounds = bounds or Bounds()
        self._asked: deque[_Wanted | int] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._cover = Cover((), self._own, self._bounds.directories)
        self._generation = ""
        self._problem = ""
        self._limit = b""
        self._table = b""
        self._ended: dict[str, str] = {}
        self._since = 0
        self._number = 1
        self._window: dict[int, int] = {}
        self._window_end = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def hand_over(self, task: str) -> Future[Handover]:
        """Everything that changed and is in no committed run that was told to `forget`."""
        wanted = _Wanted(task, Future())
        self._ask(wanted)
        return wanted.answer

    def forget(self, generation: str, number: int) -> None:
        """A run that was handed this has been committed."""
        if generation == self._generation:
            self._ask(number)

    def stop(self) -> None:
        """End it, and wait for the end."""
        self._stopped = True
        self._wake()
        self._thread.join()
        os.close(self._wake_write)

    @property
    def has_ended(self) -> bool:
        """Whether it was stopped, or has failed."""
        return not self._thread.is_alive()

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._cover.places.of)

    def _ask(self, what: _Wanted | int) -> None:
        self._asked.append(what)
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def _work(self) -> None:
        waiting: deque[_Wanted] = deque()
        with Path("/proc/self/mountinfo").open("rb") as table:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            poll.register(table.fileno(), select.POLLPRI)
            try:
                self._guarded(self._begin)
                watched = -1
                while not self._stopped:
                    if watched != self._cover.events.fd:
                        if watched >= 0:
                            poll.unregister(watched)
                        watched = self._cover.events.fd
                        if watched >= 0:
                            poll.register(watched, select.POLLIN)
                    for number, _ in poll.poll():
                        if number == self._wake_read:
                            with suppress(BlockingIOError):
                                os.read(self._wake_read, 4096)
                        elif number == table.fileno():
                            self._guarded(self._look_at_mounts)
                        elif number == self._cover.events.fd:
                            self._guarded(lambda: self._take_events(waiting))
                    self._answer(waiting)
            finally:
                self._cover.events.close()
                os.close(self._wake_read)
                for wanted in waiting:
                    wanted.answer.cancel()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BrokenError as broken:
            self._end(broken.why)
        except OSError as error:
            log.warning("watch_failed", reason=error.strerror or str(error))
            self._end(Why.LIMIT if error.errno in (errno.ENOSPC, errno.EMFILE) else Why.GAP)

    def _begin(self) -> None:
        """A new generation: everything is watched from now on, nothing is known yet."""
        self._generation = token_hex(8)
        self._problem = ""
        self._window = {}
        self._since = 0
        self._number = 1
        self._cover.close()
        self._cover = Cover(self.paths, self._own, self._bounds.directories)
        self._cover.plan = self._read_mounts()
        if all(path in self._cover.plan.apart for path in self.paths):
            raise BrokenError(Why.OFF if self.off else Why.UNWATCHED)
        self._cookies.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._cookies.glob("cookie-*"):
            path.unlink(missing_ok=True)
        self._cover.cookie_watch = self._cover.events.add(bytes(self._cookies))
        self._cover.all(self._number)
        log.info("watch_begun", directories=len(self._cover.places.of))

    def _end(self, why: Why) -> None:
        """Nothing that this generation knows counts any more."""
        if self._problem:
            return
        self._problem = str(why)
        self._ended[self._generation] = str(why)
        while len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]
        self._limit = _limits()
        self._table = self._cover.plan.mark
        self._cover.close()
        log.warning("watch_ended", reason=str(why))

    def _read_mounts(self) -> MountPlan:
        table = Path("/proc/self/mountinfo").read_bytes()
        return plan_mounts(parse_mounts(table), self.paths, self._pseudo, self.off)

    def _look_at_mounts(self) -> None:
        if not self._problem and self._read_mounts() != self._cover.plan:
            raise BrokenError(Why.REMOUNT)

    def _answer(self, waiting: deque[_Wanted]) -> None:
        while self._asked:
            asked = self._asked.popleft()
            if isinstance(asked, int):
                if not self._problem:
                    self._since = max(self._since, asked)
                    self._cover.places.forget(asked)
                continue
            if self._problem and not self._is_limited():
                self._guarded(self._begin)
            elif not self._problem:
                self._guarded(lambda: self._cover.again(self._number))
            if not self._problem:
                asked.cookie = _COOKIE + token_hex(8).encode()
                waiting.append(asked)
                self._guarded(partial(self._make_cookie, asked.cookie))
            if self._problem:
                _give(asked, self._nothing(asked.task))
                with suppress(ValueError):
                    waiting.remove(asked)
        while waiting and self._problem:
            one = waiting.popleft()
            _give(one, self._nothing(one.task))

    def _is_limited(self) -> bool:
        """Whether it would end like the last time, and would cost a look at everything."""
        if self._problem == Why.LIMIT:
            return self._limit == _limits()
        return self._problem in _LASTING and self._table == self._read_mounts().mark

    def _make_cookie(self, name: bytes) -> None:
        path = self._cookies / name.decode()
        path.touch(0o600)
        path.unlink()

    def _take_events(self, waiting: deque[_Wanted]) -> None:
        """Read what there is; stops where a cookie was found, to hand over just then."""
        places, window = self._cover.places.of, self._window
        changed = self._cover.places.changed
        for event in self._cover.events.read():
            watch, mask, name = event
            window[watch] = window.get(watch, 0) + 1
            if watch == self._cover.cookie_watch and waiting and name == waiting[0].cookie:
                if mask & inotify.CREATE:
                    wanted = waiting.popleft()
                    _give(wanted, self._handover(wanted.task))
                continue
            if mask & inotify.OVERFLOW:
                raise BrokenError(Why.OVERFLOW)
            place = places.get(watch)
            if place is None:
                continue
            changed[watch] = self._number
            if mask & (IS_DIRECTORY | _SELF_GONE | inotify.UNMOUNT | inotify.IGNORED):
                self._of_directory(event, place)
        self._keep_calm()

    def _of_directory(self, event: Event, place: Place) -> None:
        _, mask, name = event
        if mask & inotify.UNMOUNT:
            raise BrokenError(Why.REMOUNT)
        if mask & (_SELF_GONE | inotify.IGNORED):
            # For those below, the directory above has told it already, or will.
            if place.parent is None or mask & inotify.IGNORED:
                path = place.path()
                self._cover.drop(place)
                self._cover.places.mark_whole(path, self._number)
                self._cover.places.lost.add(path)
            return
        if not name:
            return
        below = (place.below or {}).get(name)
        if mask & (_APPEARED | _LEFT):
            if below is not None:
                self._cover.drop(below)
        elif below is not None or not mask & inotify.ATTRIB:
            return
        path = place.path()
        path = path + b"/" + name if path else name
        if mask & _LEFT:
            # The directory above has changed, and does not show it any more.
            self._cover.places.whole.pop(path, None)
            return
        self._cover.places.mark_whole(path, self._number)
        self._cover.below(place, path, name)

    def _keep_calm(self) -> None:
        """Above a rate, watch the busiest subtree no longer; it counts as changed whole."""
        now = clock.monotonic()
        if now >= self._window_end:
            self._window = {}
            self._window_end = now + 1.0
        elif sum(self._window.values()) > self._bounds.rate:
            busiest = self._cover.places.busiest(self._window)
            self._window = {}
            if busiest is None:
                return
            path = busiest.path()
            self._cover.drop(busiest)
            self._cover.places.mark_whole(path, self._number)
            self._cover.places.lost.add(path)
            log.info("watch_paused", path=path.decode(errors="backslashreplace"))

    def _handover(self, task: str) -> Handover:
        places = self._cover.places
        directories = tuple(
            places.of[watch].path() for watch in places.changed if watch in places.of
        )
        handed = Handover(
            task=task,
            boot=boot_id(),
            generation=self._generation,
            since=self._since,
            number=self._number,
            mounts=self._cover.plan.mark,
            roots=tuple((path, *place.identity) for path, place in places.tops.items()),
            directories=directories,
            subtrees=(*places.whole, *self._cover.plan.apart, *self._cover.places.lost),
            wall_ns=clock.wall_ns(),
            ended=tuple(self._ended.items()),
        )
        self._number += 1
        for path in self._cover.places.lost:
            places.mark_whole(path, self._number)
        return handed

    def _nothing(self, task: str) -> Handover:
        return Handover(
            task,
            boot_id(),
            self._generation,
            0,
            0,
            b"",
            (),
            (),
            (),
            problem=self._problem,
            ended=tuple(self._ended.items()),
        )


def _give(wanted: _Wanted, handed: Handover) -> None:
    if wanted.answer.set_running_or_notify_cancel():
        wanted.answer.set_result(handed)


def boot_id() -> str:
    """Which start of the machine this is; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _limits() -> bytes:
    try:
        return Path("/proc/sys/fs/inotify/max_user_watches").read_bytes()
    except OSError:
        return b""
