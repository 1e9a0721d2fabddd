"""Write one file from a parcel: under a temporary name, checked whole, then put in its place.

The temporary name is that of the task, so a run after a crash goes on with what is there. All
of it counts only by the hash in the signed order, read back from the file.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from agent.files.parcels import Parcels
from agent.files.part import part_name, remove_parts
from agent.files.way import Spot, sync_names
from protocol.abreast import abreast
from protocol.action import PutFile
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import ParcelId, TaskId
from protocol.parcel import (
    AT_ONCE,
    OPERATOR,
    PIECE_BYTES,
    ParcelDamagedError,
    open_piece,
    open_trailer,
    pieces_in,
)

USUAL_MODE: Final = 0o644
SPARE_BYTES: Final = 16 * 1024 * 1024
"""Stay free on the file system."""

_OPENED: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST_ID: Final = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class Belongings:
    """Whom a file will belong to, and its permissions."""

    uid: int
    gid: int
    mode: int


def belongings(action: PutFile, old: os.stat_result | None) -> Belongings:
    """What the order says, and for the rest what the file before it had.

    Raises INVALID for an owner or group that this machine does not know.
    """
    uid = os.geteuid() if old is None else old.st_uid
    gid = os.getegid() if old is None else old.st_gid
    mode = USUAL_MODE if old is None else stat.S_IMODE(old.st_mode)
    if action.owner:
        uid = _number(action.owner, lambda name: pwd.getpwnam(name).pw_uid, "user")
    if action.group:
        gid = _number(action.group, lambda name: grp.getgrnam(name).gr_gid, "group")
    if action.mode & ~0o7777:
        raise InvalidError(f"{action.mode:o} is not a mode")
    return Belongings(uid, gid, action.mode or mode)


def there(spot: Spot) -> os.stat_result | None:
    """What has the name now: a regular file or nothing; INVALID for anything else."""
    try:
        found = os.lstat(spot.name, dir_fd=spot.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SteadError(f"{spot.shown}: {error.strerror}", code=Code.PRECONDITION) from error
    if stat.S_ISLNK(found.st_mode):
        raise InvalidError(f"{spot.shown} is a link; name what it leads to")
    if stat.S_ISDIR(found.st_mode):
        raise InvalidError(f"{spot.shown} is a directory; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise InvalidError(f"{spot.shown} is no regular file; it is left as it is")
    return found


def _has_content(spot: Spot, action: PutFile) -> bool:
    fd = os.open(spot.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=spot.fd)
    try:
        if os.fstat(fd).st_size != action.size:
            return False
        return _hash_of(fd, action.size) == action.content_hash
    finally:
        os.close(fd)


def write_file(
    spot: Spot,
    action: PutFile,
    key: bytes,
    parcels: Parcels,
    task: TaskId,
    *,
    wait: Callable[[int], None],
    told: Callable[[int], None],
) -> bool:
    """Fetch the content and put it in place. `wait` is asked before so many bytes are fetched.

    False where nothing may be overwritten and the file has this very content.

    Raises STORE_FULL before anything is fetched, BAD_SIGNATURE for other content than the
    order's, ALREADY_EXISTS, and what `Parcels` raises.
    """
    old = there(spot)
    own = belongings(action, old)
    aside = part_name(spot, task)
    if action.no_overwrite and old is not None:
        with _failing(spot):
            if not _has_content(spot, action):
                raise _taken(spot)
            # Of a run that was killed when it had put it there.
            with suppress(FileNotFoundError):
                os.unlink(aside, dir_fd=spot.fd)
        return False
    with _failing(spot):
        fd = _opened(aside, spot)
    try:
        with _failing(spot):
            fcntl.flock(fd, fcntl.LOCK_EX)
            remove_parts(spot, aside)
        try:
            with _failing(spot):
                done = min(os.fstat(fd).st_size // PIECE_BYTES, action.size // PIECE_BYTES)
                _check_room(fd, action.size - done * PIECE_BYTES, spot)
                os.ftruncate(fd, done * PIECE_BYTES)
                _fill(fd, action, key, parcels, done, wait=wait, told=told)
                if action.verify:
                    _check_read_back(fd, action)
                _give(fd, own, spot)
                # Afterwards: a change of owner takes bits away.
                os.fchmod(fd, own.mode)
                os.fsync(fd)
            _put_in_place(spot, aside, action)
        except SteadError:
            # The task is over: no later run goes on with it.
            with suppress(OSError):
                os.unlink(aside, dir_fd=spot.fd)
            raise
    finally:
        os.close(fd)
    return True


def _fill(
    fd: int,
    action: PutFile,
    key: bytes,
    parcels: Parcels,
    done: int,
    *,
    wait: Callable[[int], None],
    told: Callable[[int], None],
) -> None:
    parcel = ParcelId(action.parcel_id)
    whole = blake3()
    for index in range(done):
        whole.update(os.pread(fd, PIECE_BYTES, index * PIECE_BYTES))
    count = pieces_in(action.size)

    def piece(index: int) -> bytes:
        length = min(PIECE_BYTES, action.size - index * PIECE_BYTES)
        wait(length)
        plain = open_piece(key, parcel, OPERATOR, index, parcels.fetch(parcel, index))
        if len(plain) != length:
            raise ParcelDamagedError("the file is longer or shorter than the order says")
        return plain

    at = done * PIECE_BYTES
    # Written in order: how much is there is how far a run came that was killed.
    for plain in abreast(piece, range(done, count), most=AT_ONCE):
        view = memoryview(plain)
        while view:
            written = os.pwrite(fd, view, at)
            view, at = view[written:], at + written
        whole.update(plain)
        told(at)
    open_trailer(key, parcel, OPERATOR, count, parcels.fetch(parcel, count))
    if whole.digest() != action.content_hash and done:
        # A power cut may leave the length of what it did not leave the bytes of.
        os.ftruncate(fd, 0)
        _fill(fd, action, key, parcels, 0, wait=wait, told=told)
    elif whole.digest() != action.content_hash:
        raise ParcelDamagedError(
            "the content is not what the operator signed; nothing was put in place. Order it again"
        )


def _put_in_place(spot: Spot, aside: bytes, action: PutFile) -> None:
    with _failing(spot):
        if action.no_overwrite:
            try:
                os.link(
                    aside, spot.name, src_dir_fd=spot.fd, dst_dir_fd=spot.fd, follow_symlinks=False
                )
            except FileExistsError:
                raise _taken(spot) from None
            os.unlink(aside, dir_fd=spot.fd)
        else:
            there(spot)
            os.rename(aside, spot.name, src_dir_fd=spot.fd, dst_dir_fd=spot.fd)
        sync_names(spot.fd)


def _taken(spot: Spot) -> SteadError:
    return SteadError(
        f"{spot.shown} is there already, and was left; leave out --no-overwrite to replace it",
        code=Code.ALREADY_EXISTS,
    )


def _opened(aside: bytes, spot: Spot) -> int:
    """The part, as far as an earlier run came. The name is this task's alone.

    What is not ours to go on with makes way: the link or pipe of somebody who may write there,
    or a part that was given to its owner just before the run was killed.
    """
    for _ in range(2):
        try:
            fd = os.open(aside, _OPENED, 0o600, dir_fd=spot.fd)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        else:
            found = os.fstat(fd)
            is_own = found.st_uid == os.geteuid() and found.st_nlink == 1
            if stat.S_ISREG(found.st_mode) and is_own:
                os.fchmod(fd, 0o600)
                return fd
            os.close(fd)
        os.unlink(aside, dir_fd=spot.fd)
    raise SteadError(
        f"{spot.shown}: somebody else has a file under the temporary name beside it again and "
        "again; look at who may write there",
        code=Code.DENIED,
    )


def _give(fd: int, own: Belongings, spot: Spot) -> None:
    try:
        os.fchown(fd, own.uid, own.gid)
    except PermissionError:
        raise SteadError(
            f"{spot.shown}: it would belong to {own.uid}:{own.gid}, and this agent does not run "
            "as root; name its own user and a group of its own with --owner and --group",
            code=Code.PRECONDITION,
        ) from None


def _check_room(fd: int, needed: int, spot: Spot) -> None:
    found = os.fstatvfs(fd)
    free = found.f_bavail * found.f_frsize
    if free < needed + SPARE_BYTES:
        raise SteadError(
            f"{spot.shown}: {needed} bytes are to be written and {free} are free; make room "
            "there, then order it again",
            code=Code.STORE_FULL,
        )


def _check_read_back(fd: int, action: PutFile) -> None:
    os.fsync(fd)
    with suppress(OSError, AttributeError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if _hash_of(fd, action.size) != action.content_hash:
        raise ParcelDamagedError("the disk gives back other content than was written; look at it")


def _hash_of(fd: int, size: int) -> bytes:
    whole = blake3()
    at = 0
    while at < size and (piece := os.pread(fd, min(PIECE_BYTES, size - at), at)):
        whole.update(piece)
        at += len(piece)
    return whole.digest()


def _number(text: str, find: Callable[[str], int], what: str) -> int:
    if text.isascii() and text.isdigit():
        if int(text) > _LARGEST_ID:
            raise InvalidError(f"{text} is no number of a {what}")
        return int(text)
    try:
        return find(text)
    except (KeyError, ValueError):
        raise InvalidError(f"this machine knows no {what} {text[:80]!r}") from None


@contextmanager
def _failing(spot: Spot) -> Iterator[None]:
    """Turn what the system says into an error with the path."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SteadError(
            f"{spot.shown}: {error.strerror}; nothing was put in place",
            code=Code.STORE_FULL if full else Code.PRECONDITION,
        ) from error
