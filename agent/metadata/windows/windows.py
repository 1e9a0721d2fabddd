"""What Windows knows of a file: attributes, security descriptor, reparse point, birth, streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Final

from agent.metadata.extras import Extras
from agent.metadata.named import Fill, Listing, Write, reading, writing
from agent.metadata.unsettable import WINDOWS
from agent.metadata.windows import attributes, basic, reparse, security, streams
from agent.metadata.windows.basic import Basic
from agent.metadata.windows.calls import Calls
from protocol.errors import InvalidError
from protocol.vault.entry import Entry

_NORMAL: Final = 0x80
_AUDITING: Final = f"{security.EXTENSION}, rules of auditing"


class Windows:
    """Asks and tells Windows by `calls`. Tried with recorded answers, not on Windows."""

    name: Final = WINDOWS

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def is_away(self, found: os.stat_result) -> bool:
        """Whether it is a placeholder."""
        return attributes.is_away(int(getattr(found, "st_file_attributes", 0)))

    def of_open(self, fd: int) -> Extras:
        """What cannot be read as what it should be is left out, and told."""
        found = basic.parse(self._calls.basic(fd))
        left_out: list[str] = []
        extensions: list[tuple[str, bytes]] = []
        is_link = False
        if found.attributes & attributes.REPARSE_POINT:
            try:
                is_link, kept = _reparse(self._calls.reparse(fd))
                extensions += kept
            except InvalidError as error:
                left_out.append(str(error))
        bits, reasons = attributes.kept(found.attributes, is_link=is_link)
        left_out += reasons
        if bits:
            extensions.append((attributes.EXTENSION, attributes.build(bits)))
        try:
            descriptor = self._security(fd)
            security.parse(descriptor)
            extensions.append((security.EXTENSION, descriptor))
        except InvalidError as error:
            left_out.append(str(error))
        try:
            born_ns = attributes.born_ns(found.created)
        except InvalidError as error:
            born_ns = None
            left_out.append(str(error))
        return Extras((), tuple(sorted(extensions)), born_ns, tuple(left_out))

    def _security(self, fd: int) -> bytes:
        """With the rules of auditing, where somebody may read them and the volume has any."""
        if self._calls.may_audit():
            with suppress(OSError):
                return self._calls.security(fd, auditing=True)
        return self._calls.security(fd, auditing=False)

    def at(self, directory_fd: int, name: bytes) -> Extras:
        """Links are opened as themselves."""
        with self._opened(directory_fd, name) as fd:
            return self.of_open(fd)

    def give(self, fd: int, entry: Entry) -> Iterator[str]:
        """The reparse point first: what it is decides what else can be set."""
        extensions = dict(entry.extensions)
        point = extensions.get(reparse.EXTENSION)
        if point is not None:
            yield from _told(reparse.EXTENSION, lambda: self._give_reparse(fd, point))
        descriptor = extensions.get(security.EXTENSION)
        if descriptor is not None:
            yield from self._give_security(fd, descriptor)
        born_ns = entry.born_ns
        if born_ns is not None:
            yield from _told("time of creation", lambda: self._give_birth(fd, born_ns))
        yield from _told(attributes.EXTENSION, lambda: _check_attributes(entry))

    def give_at(self, directory_fd: int, name: bytes, entry: Entry) -> Iterator[str]:
        """The same; a link is not followed."""
        with self._opened(directory_fd, name) as fd:
            yield from self.give(fd, entry)

    def has_flags(self, entry: Entry) -> bool:
        """Its attributes: one of them keeps a file from being written to."""
        try:
            return _attributes(entry) is not None
        except InvalidError:
            return False

    def give_flags(self, fd: int, entry: Entry) -> None:
        """Those that Windows takes; others that it has stay."""
        wanted = _attributes(entry)
        if wanted is not None:
            self._change(fd, attributes.SETTABLE, wanted)

    def release(self, fd: int) -> None:
        """The attribute that makes it read-only."""
        self._change(fd, attributes.READONLY, 0)

    def streams(self, directory_fd: int, name: bytes, _: os.stat_result) -> Listing | None:
        """What the volume lists, but for the content itself."""
        with self._opened(directory_fd, name) as fd:
            told = self._calls.streams(fd)
        return None if told is None else streams.listing_of(told)

    def takes_stream(self, stream: bytes) -> bool:
        """Without a colon and a slash, and not too long."""
        return streams.problem_of(stream) is None

    def read_stream(
        self, directory_fd: int, name: bytes, stream: bytes
    ) -> AbstractContextManager[Fill]:
        """It stays open when the file is closed."""
        return reading(self._open_stream(directory_fd, name, stream, anew=False))

    def write_stream(
        self, directory_fd: int, name: bytes, stream: bytes
    ) -> AbstractContextManager[Write]:
        """It stays open when the file is closed."""
        return writing(self._open_stream(directory_fd, name, stream, anew=True))

    def remove_stream(self, directory_fd: int, name: bytes, stream: bytes) -> None:
        """Of that name and no other."""
        with self._opened(directory_fd, name) as fd:
            self._calls.remove_stream(fd, streams.full_name(stream))

    def _open_stream(self, directory_fd: int, name: bytes, stream: bytes, *, anew: bool) -> int:
        with self._opened(directory_fd, name) as fd:
            return self._calls.open_stream(fd, streams.full_name(stream), anew=anew)

    @contextmanager
    def _opened(self, directory_fd: int, name: bytes) -> Iterator[int]:
        """Something in a directory, or the directory itself, which the caller keeps."""
        if not name:
            yield directory_fd
            return
        fd = self._calls.open_at(directory_fd, name)
        try:
            yield fd
        finally:
            os.close(fd)

    def _change(self, fd: int, which: int, wanted: int) -> None:
        found = basic.parse(self._calls.basic(fd)).attributes
        new = found & ~which | wanted & which
        if new != found:
            # Zero would leave them as they are.
            self._calls.set_basic(fd, basic.build(Basic(attributes=new or _NORMAL)))

    def _give_reparse(self, fd: int, buffer: bytes) -> None:
        reparse.target_of(reparse.parse(buffer))
        self._calls.set_reparse(fd, buffer)

    def _give_security(self, fd: int, data: bytes) -> Iterator[str]:
        """The rules of auditing apart: they take a privilege that nothing else takes."""
        try:
            parts, descriptor = security.to_set(security.parse(data))
            asked = security.build(descriptor)
        except InvalidError as error:
            yield f"{security.EXTENSION}: {error}"
            return
        rest, audit = parts & ~security.AUDITING, parts & security.AUDITING
        for what, which in ((security.EXTENSION, rest), (_AUDITING, audit)):
            if which:
                yield from _told(what, partial(self._calls.set_security, fd, which, asked))

    def _give_birth(self, fd: int, born_ns: int) -> None:
        created = attributes.to_filetime(born_ns)
        self._calls.set_basic(fd, basic.build(Basic(created=created)))


def _reparse(buffer: bytes) -> tuple[bool, tuple[tuple[str, bytes], ...]]:
    """Whether it becomes a link, and what is kept of it; `InvalidError` says why nothing."""
    point = reparse.parse(buffer)
    dropped = reparse.reason_dropped(point.tag)
    if dropped is not None:
        raise InvalidError(dropped)
    is_link = reparse.target_of(point) is not None
    kept = ((reparse.EXTENSION, buffer),) if reparse.needs_extension(buffer) else ()
    return is_link, kept


def _attributes(entry: Entry) -> int | None:
    value = dict(entry.extensions).get(attributes.EXTENSION)
    return None if value is None else attributes.parse(value)


def _check_attributes(entry: Entry) -> None:
    left = (_attributes(entry) or 0) & (attributes.INTEGRITY_STREAM | attributes.NO_SCRUB)
    if left:
        raise InvalidError(f"{left:#x} are given by the volume alone")


def _told(what: str, act: Callable[[], None]) -> Iterator[str]:
    try:
        act()
    except OSError as error:
        yield f"{what}: {(error.strerror or str(error)).lower()}"
    except InvalidError as error:
        yield f"{what}: {error}"
