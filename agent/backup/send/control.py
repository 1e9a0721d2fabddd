"""Pause, resume and cancel of this machine's backups and restores, by its own administrator.

A file in the agent's home says what is wished. What runs looks at it a few times
a second, on a thread of its own: a pause takes hold where something is read or sent, and
a cancel ends the process wherever it is, but never once the commit is under way. Whether
a backup runs at all shows by a lock that ends with its process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from agent.backup.send.share import LOOK_S as SHARE_LOOK_S
from agent.backup.send.share import Share, processor_time
from agent.config import AgentHome
from agent.host import clock
from agent.host.descriptor import OURS, take_lock
from agent.host.files import make_private_directory, read_if_there, write_atomically
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError

LOOK_S = 0.2
KEEP_S = 120.0
"""A paused backup renews its session's lease this often: well within the 15 minutes."""

ENDS_WITHIN_S = 10.0


class Wish(msgspec.Struct, frozen=True):
    """The file. Each cancel is counted, so that it means what runs and not what comes later."""

    paused_by: str = ""
    cancels: int = 0
    cancelled_by: str = ""


def read_wish(home: AgentHome) -> Wish:
    """What is wished; nothing when there is no file. `InvalidError` when it is damaged."""
    data = read_if_there(home.backup_wish)
    try:
        return Wish() if data is None else msgspec.json.decode(data, type=Wish)
    except UNREADABLE as error:
        raise InvalidError(
            f"{home.backup_wish} is damaged: {error}; `stead-agent backup resume` writes it anew"
        ) from error


class Control:
    """What a backup or a restore asks before it goes on. By itself it is never paused."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paused = False
        self._paused_at = 0.0
        self._paused_s = 0.0
        self._settled = False
        self._share: Share | None = None
        self._children: Sequence[int] = ()
        self._look_at = 0.0

    def share(self, percent: int, children: Sequence[int] = ()) -> None:
        """Use so much of one processor at most, `children` included; 0 is no limit."""
        self._share = Share(percent) if percent else None
        self._children = children

    def hold(self, keep: Callable[[], None], left: Callable[[], bool] = lambda: False) -> None:
        """Wait while paused, and until `left`; `keep` is called now and then meanwhile.

        Rest, too, where more of the processor was used than is allowed.
        """
        if self._share is not None:
            self._rest(self._share, left)
        if not self._paused:
            return
        keep_at = clock.monotonic() + KEEP_S
        while True:
            with self._changed:
                if not self._paused or left():
                    return
                self._changed.wait(LOOK_S)
            if clock.monotonic() >= keep_at:
                keep()
                keep_at = clock.monotonic() + KEEP_S

    def _rest(self, share: Share, left: Callable[[], bool]) -> None:
        now = clock.monotonic()
        if now < self._look_at:
            return
        with self._changed:
            rest = share.rest(processor_time(self._children), now)
        until = now + rest
        while not left() and (more := until - clock.monotonic()) > 0:
            threading.Event().wait(min(more, LOOK_S))
        self._look_at = clock.monotonic() + SHARE_LOOK_S

    @property
    def is_paused(self) -> bool:
        """Whether `hold` waits."""
        return self._paused

    @property
    def paused_s(self) -> float:
        """For how long it has been paused, all pauses that have ended added up."""
        return self._paused_s

    def settle(self, *, begun: bool = True) -> None:
        """The commit begins, and a cancel comes too late; or it came to nothing."""
        with self._changed:
            self._settled = begun

    def wished(self, *, paused: bool) -> bool:
        """Take note of a wish; whether that changed anything."""
        with self._changed:
            changed, self._paused = self._paused != paused, paused
            if changed:
                now = clock.monotonic()
                self._paused_s += 0.0 if paused else now - self._paused_at
                self._paused_at = now
            self._changed.notify_all()
        return changed

    def cancel(self, end: Callable[[], None]) -> None:
        """Call `end`, which does not return, unless the commit has begun."""
        with self._changed:
            if not self._settled:
                end()


@contextlib.contextmanager
def controlled(
    home: AgentHome,
    control: Control,
    *,
    end: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Follow the file for the block. `end` is told who cancelled, `say` who paused."""
    # In this order: whoever finds the lock held knows that a cancel from now on is seen.
    before = _wish_or(home, Wish()).cancels
    with _working(home), _followed(home, control, before, end, say):
        yield


@contextlib.contextmanager
def _followed(
    home: AgentHome,
    control: Control,
    before: int,
    end: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator[None]:
    over = threading.Event()

    def look(last: Wish) -> Wish:
        wish = _wish_or(home, last)
        if wish.cancels != before:
            control.cancel(lambda: end(wish.cancelled_by))
        if control.wished(paused=bool(wish.paused_by)) and wish.paused_by:
            say(wish.paused_by)
        return wish

    def follow(last: Wish) -> None:
        while not over.wait(LOOK_S):
            last = look(last)

    last = look(Wish(cancels=before))
    thread = threading.Thread(target=follow, args=(last,), name="control", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wish_or(home: AgentHome, otherwise: Wish) -> Wish:
    """A file that cannot be read must not stop backups."""
    try:
        return read_wish(home)
    except (InvalidError, OSError):
        return otherwise


@contextlib.contextmanager
def _working(home: AgentHome) -> Iterator[None]:
    make_private_directory(home.cache)
    number = _open_lock(home.backup_working)
    try:
        take_lock(number, shared=True, wait=True)
        yield
    finally:
        os.close(number)


def is_working(home: AgentHome) -> bool:
    """Whether a backup or a restore runs."""
    make_private_directory(home.cache)
    number = _open_lock(home.backup_working)
    try:
        return not take_lock(number)
    finally:
        os.close(number)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | OURS, 0o600)


def pause(home: AgentHome, who: str) -> bool:
    """Pause what runs and what begins; whether something runs."""
    _write(home, msgspec.structs.replace(_wish_or(home, Wish()), paused_by=who))
    return is_working(home)


def resume(home: AgentHome) -> bool:
    """Let backups go on; whether they were paused."""
    wish = _wish_or(home, Wish())
    _write(home, msgspec.structs.replace(wish, paused_by=""))
    return bool(wish.paused_by)


def cancel(home: AgentHome, who: str, *, within_s: float = ENDS_WITHIN_S) -> None:
    """End what runs, and wait for that.

    NOT_FOUND when nothing runs, TIMED_OUT when it does not end, as in a commit.
    """
    if not is_working(home):
        raise SteadError("no backup or restore runs on this machine", code=Code.NOT_FOUND)
    wish = _wish_or(home, Wish())
    _write(home, msgspec.structs.replace(wish, cancels=wish.cancels + 1, cancelled_by=who))
    give_up = clock.monotonic() + within_s
    while is_working(home):
        if clock.monotonic() >= give_up:
            raise SteadError(
                f"it has not ended within {within_s:g} s: a backup's commit was under way already; "
                "`stead-agent backup ls` shows it when it is done",
                code=Code.TIMED_OUT,
            )
        threading.Event().wait(LOOK_S / 2)


def _write(home: AgentHome, wish: Wish) -> None:
    write_atomically(home.backup_wish, msgspec.json.encode(wish))


def administrator() -> str:
    """Who runs this command, for the record."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {name}" if behind and behind != name else name
