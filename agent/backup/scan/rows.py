"""Look at every row of a walk: take over what is unchanged, read what is not.

All file work is done here, on one thread: short system calls on several threads fight
for the interpreter lock.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.backup.budget import Budget, TooLongError
from agent.backup.counts import Counts
from agent.backup.cut.big import BigFile
from agent.backup.cut.named_read import NamedReader
from agent.backup.cut.read import AwayError, ChangedTypeError, is_small, open_file, read_small
from agent.backup.cut.sealing import Sealing
from agent.backup.cut.stream import SmallStream
from agent.backup.far_time import mtime_of, near, with_time
from agent.backup.owners import Owners
from agent.backup.scan.assemble import Assembly, Draft, extras_of
from agent.backup.scan.groups import Groups
from agent.backup.scan.probe import Probe
from agent.backup.scan.sample import Sample
from agent.backup.scan.signs import Counting, sample_at, sample_of
from agent.backup.scan.visit import Found, Kept, Whole
from agent.backup.select.commands import Streams
from agent.backup.select.walk import MARK_BYTES, OPEN_DIRECTORY, Row, line_of
from agent.backup.skipped import SkippedList, is_gone
from agent.backup.tree.merge import Known, Mixed, Same, Segment
from agent.backup.tree.state import NO_MARK, untrusted
from agent.host.piped import piped
from agent.host.process import ProgramError
from agent.metadata.named import NO_STREAMS
from agent.metadata.system import SYSTEM
from protocol.vault.chunk import Reference, Sealer
from protocol.vault.cut import Cutter
from protocol.vault.entry import INLINE_BYTES, Entry, Extent, Kind
from protocol.vault.path import join
from protocol.vault.sizes import SMALL_FILE_BYTES

_KNOWN_EXTENTS = 65_536
_RETRY_BYTES = 64 * 1024 * 1024
_FILE, _DIRECTORY, _SYMLINK = int(Kind.FILE), int(Kind.DIRECTORY), int(Kind.SYMLINK)
_DEVICES = (int(Kind.CHARACTER_DEVICE), int(Kind.BLOCK_DEVICE))
_ODD = frozenset({int(Kind.FIFO), int(Kind.SOCKET), *_DEVICES})


@dataclass(slots=True)
class Scan:
    """Where everything goes. `safe_ns`: time stamps before it can be trusted next time."""

    assembly: Assembly
    stream: SmallStream
    sealing: Sealing
    sealer: Sealer
    cutter: Cutter
    give: Callable[[Reference, bytes], None]
    old_extents: Callable[[Entry], Iterable[Extent]]
    owners: Owners
    skipped: SkippedList
    sample: Sample
    probe: Probe
    seed: random.Random
    safe_ns: int
    tick: Callable[[], None]
    streams: Streams = field(default_factory=Streams)
    budget: Budget = field(default_factory=Budget)
    signs: Counting = field(default_factory=Counting)
    counts: Counts = field(default_factory=Counts)
    groups: Groups = field(default_factory=Groups)

    def take(self, pieces: Iterable[Same | Mixed | Whole | Kept]) -> None:
        """Look at everything; what was read is given to the assembly in key order."""
        for piece in pieces:
            if isinstance(piece, Same):
                self._same(piece)
                self.sample.offer(piece)
            elif isinstance(piece, Whole):
                self._same(piece)
                self.probe.offer(piece.block)
            elif isinstance(piece, Kept):
                self._kept(piece.found)
            else:
                for segment in piece.segments:
                    self._rows(segment, piece.known)
            self.assembly.drain()
            self.tick()
        self.stream.flush()
        self.assembly.drain(down_to=0)

    def _kept(self, found: Iterable[Found]) -> None:
        counts, add = self.counts, self.assembly.add
        for one in found:
            parent, entry, mark = one
            self.probe.offer_one(one)
            line = entry.name + b"\0" + mark
            draft = Draft(parent, line, entry.name, entry.mode, entry.owner, 0)
            draft.entry, draft.link_group = entry, entry.link_group
            counts.entries += 1
            if entry.mode >> 12 == _FILE:
                counts.files += 1
                counts.reused_files += 1
                counts.bytes += entry.size
            add(draft)

    def _same(self, piece: Same | Whole) -> None:
        self.assembly.add(piece.block)
        node = piece.block.node()
        counts = self.counts
        counts.entries += node.entries
        counts.files += node.files
        counts.reused_files += node.files
        counts.bytes += node.bytes

    def _rows(self, segment: Segment, known: Known) -> None:
        parent, fd, rows = segment
        add, counts = self.assembly.add, self.counts
        safe, owner_of = self.safe_ns, self.owners.of
        self.signs.rows = rows
        for row in rows:
            _, stat, line = row
            mode = stat.st_mode
            kind = mode >> 12
            if kind != _DIRECTORY and stat.st_nlink > 1:
                draft = self._linked(parent, fd, row, known)
            else:
                draft = self._old(parent, row, known) if known else None
                if draft is None:
                    draft = self._new(parent, fd, row, known)
            if draft is None:
                continue
            if draft.line is line and (stat.st_ctime_ns >= safe or stat.st_mtime_ns >= safe):
                draft.line = untrusted(line)
            draft.owner = owner_of(stat.st_uid, stat.st_gid)
            counts.entries += 1
            if kind == _FILE:
                counts.files += 1
            add(draft)
            if not counts.entries & 1023:
                self.assembly.drain()
                self.tick()

    def _old(self, parent: bytes, row: Row, known: Known) -> Draft | None:
        """The entry of the previous tree, when nothing has changed since."""
        name, stat, line = row
        found = known.get((parent, name))
        if found is None or found[1] != line[-MARK_BYTES:]:
            return None
        entry = found[0]
        owner = self.owners.of(stat.st_uid, stat.st_gid)
        if entry.owner != owner or entry.link_group is not None:
            entry = replace(entry, owner=owner, link_group=None)
        draft = Draft(parent, line, name, entry.mode, owner, mtime_of(entry))
        draft.entry = entry
        if entry.mode >> 12 == _FILE:
            self.counts.reused_files += 1
            self.counts.bytes += entry.size
        return draft

    def _linked(self, parent: bytes, fd: int, row: Row, known: Known) -> Draft | None:
        """One of several names of the same file: its content is read once."""
        name, stat, line = row
        group = self.groups.find(fd, row)
        if group is not None:
            try:
                self.budget.take(stat, again=True)
            except TooLongError as error:
                self.skipped.add(join(parent, name), str(error))
                return None
            draft = Draft(parent, line, name, stat.st_mode, group.draft.owner, stat.st_mtime_ns)
            first = group.draft
            draft.first, draft.extras, draft.link_group = first, first.extras, group.path
            if self.signs.active and stat.st_mode >> 12 == _FILE:
                self.signs.met(parent, name, known)
            draft.mtime_ns = first.mtime_ns
            if stat.st_mode >> 12 != _FILE:
                assert first.entry is not None
                draft.first = None
                draft.entry = replace(first.entry, name=name)
            if first.line[-MARK_BYTES:] != line[-MARK_BYTES:]:
                draft.line = name + b"\0" + NO_MARK
            self.groups.met(group, stat)
            return draft
        path = join(parent, name)
        draft_of_first = self._old(parent, row, known) or self._new(parent, fd, row, known)
        if draft_of_first is None:
            return None
        draft_of_first.link_group = path
        if draft_of_first.entry is not None:
            draft_of_first.entry = replace(draft_of_first.entry, link_group=path)
            draft_of_first.extras = extras_of(draft_of_first.entry)
        self.groups.begin(path, row, draft_of_first)
        return draft_of_first

    def _new(self, parent: bytes, fd: int, row: Row, known: Known) -> Draft | None:
        """Read something that is new or changed; None when it could not be read."""
        name, stat, line = row
        kind = stat.st_mode >> 12
        owner = self.owners.of(stat.st_uid, stat.st_gid)
        draft = Draft(parent, line, name, stat.st_mode, owner, stat.st_mtime_ns)
        try:
            if self.streams.by_path and self._made(draft):
                pass
            elif kind == _FILE:
                self._file(draft, fd, row, known)
            elif kind == _DIRECTORY:
                self._directory(draft, fd, stat)
            else:
                self._odd(draft, fd, stat)
        except OSError as error:
            gone = is_gone(fd, name, error, stat.st_ino)
            self.skipped.not_read(join(parent, name), error, gone=gone)
            return None
        except (ChangedTypeError, AwayError, TooLongError, ProgramError) as error:
            self.skipped.add(join(parent, name), str(error))
            return None
        for reason in draft.extras.left_out:
            self.skipped.add(join(parent, name), reason)
        return draft

    def _made(self, draft: Draft) -> bool:
        """Whether this is on no disk: the output of a program, or a folder on its way.

        What a program printed before it failed is not kept: its chunks belong to nothing.
        """
        path = join(draft.parent, draft.name)
        stream = self.streams.by_path.get(path)
        if stream is not None:
            big = self._new_big()
            before = self.counts.bytes
            try:
                with piped(stream.argv, timeout=self.streams.limit_s) as program:
                    big.pour(program.fill, self.cutter, self._read_some)
                    program.finish()
            except ProgramError:
                self.counts.bytes = before
                raise
            draft.big, draft.size = big, big.size
            self.counts.read_files += 1
        elif path in self.streams.folders:
            draft.entry = Entry(draft.name, draft.mode, draft.owner, near(draft.mtime_ns))
        else:
            return False
        return True

    def _file(self, draft: Draft, fd: int, row: Row, known: Known) -> None:
        counts, stat = self.counts, row[1]
        self.budget.take(stat)
        if SYSTEM.is_away(stat):
            raise AwayError
        if is_small(stat):
            room = self.stream.room()
            size, extras, after, changed = read_small(fd, draft.name, stat, room)
            if size >= 0:
                draft.extras, draft.size = extras, size
                if self.signs.active:
                    self.signs.read(draft.parent, row, known, lambda: sample_of(room[:size]))
                if size <= INLINE_BYTES:
                    draft.inline = bytes(room[:size])
                else:
                    draft.start = self.stream.add(size)
                if after is not stat and after.st_ctime_ns != stat.st_ctime_ns:
                    self._restat(draft, after)
                if changed:
                    self._mark_changed(draft)
                self._named(draft, fd, draft.name, after)
                counts.bytes += size
                counts.read_files += 1
                counts.read_bytes += size
                return
            stat = after
        self._big(draft, fd, row, stat, known)

    def _big(self, draft: Draft, fd: int, row: Row, stat: os.stat_result, known: Known) -> None:
        old = known.get((draft.parent, draft.name))
        fingerprints: dict[bytes, Reference] = {}
        if old is not None and old[0].size >= SMALL_FILE_BYTES:
            for number, extent in enumerate(self.old_extents(old[0])):
                if number >= _KNOWN_EXTENTS:
                    break
                if extent.reference is not None:
                    fingerprints[extent.reference.fingerprint] = extent.reference
        file = open_file(fd, draft.name)
        try:
            for last_try in (stat.st_size > _RETRY_BYTES, True):
                stat = os.fstat(file)
                if stat.st_mode >> 12 != _FILE:
                    raise ChangedTypeError("changed its type during the backup")
                big = draft.big = self._new_big()
                big.read(file, stat, self.cutter, fingerprints, self._read_some)
                draft.extras = SYSTEM.of_open(file)
                after = os.fstat(file)
                changed = line_of(b"", after) != line_of(b"", stat)
                if not changed or last_try:
                    break
            self._restat(draft, after)
            if changed:
                self._mark_changed(draft)
            self._named(draft, fd, draft.name, after)
            draft.size = big.size
            self.counts.read_files += 1
            if self.signs.active:
                self.signs.read(draft.parent, row, known, lambda: sample_at(file, after.st_size))
        finally:
            os.close(file)

    def _read_some(self, size: int) -> None:
        self.counts.bytes += size
        self._read_beside(size)

    def _read_beside(self, size: int) -> None:
        """What is read and counts for no file."""
        self.counts.read_bytes += size
        self.assembly.drain()
        self.tick()

    def _restat(self, draft: Draft, stat: os.stat_result) -> None:
        """What was read is not quite what was listed: keep what belongs to the content."""
        draft.mode, draft.mtime_ns = stat.st_mode, stat.st_mtime_ns
        fresh = stat.st_ctime_ns >= self.safe_ns or stat.st_mtime_ns >= self.safe_ns
        line = draft.name + b"\0" + NO_MARK if fresh else line_of(draft.name, stat)
        if line != draft.line:
            draft.line = line

    def _mark_changed(self, draft: Draft) -> None:
        draft.changed = True
        draft.line = draft.name + b"\0" + NO_MARK
        self.counts.changed_while_read += 1

    def _named(self, draft: Draft, directory: int, name: bytes, found: os.stat_result) -> None:
        """Read the streams of what was `found`, and say when that changed meanwhile."""
        listing = SYSTEM.streams(directory, name, found)
        if listing is None or listing == NO_STREAMS:
            return
        reader = NamedReader(self.stream, self.cutter, self._new_big, self._read_beside)
        draft.named, left_out = reader.take(directory, name, listing)
        draft.extras = draft.extras._replace(left_out=draft.extras.left_out + left_out)
        after = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        if line_of(b"", after) != line_of(b"", found):
            draft.line = draft.name + b"\0" + NO_MARK
            if name and not draft.changed:
                self._mark_changed(draft)

    def _new_big(self) -> BigFile:
        return BigFile(self.sealing, self.sealer, self.give)

    def _directory(self, draft: Draft, fd: int, stat: os.stat_result) -> None:
        # What is in one that cannot be opened is reported by the walk; it is there itself.
        with suppress(PermissionError):
            directory = os.open(draft.name, OPEN_DIRECTORY, dir_fd=fd) if draft.name else fd
            try:
                draft.extras = SYSTEM.of_open(directory)
                self._named(draft, directory, b"", stat)
            finally:
                if draft.name:
                    os.close(directory)

    def _odd(self, draft: Draft, fd: int, stat: os.stat_result) -> None:
        kind = stat.st_mode >> 12
        if kind not in _ODD and kind != _SYMLINK:
            raise ChangedTypeError("is of a type that is not known")
        extras = draft.extras = SYSTEM.at(fd, draft.name)
        target = os.readlink(draft.name, dir_fd=fd) if kind == _SYMLINK else b""
        if kind == _SYMLINK and not target:
            raise ChangedTypeError("is a symbolic link that does not say where it leads")
        draft.entry = Entry(
            draft.name,
            draft.mode,
            draft.owner,
            near(draft.mtime_ns),
            target=target,
            rdev=stat.st_rdev if kind in _DEVICES else 0,
            xattrs=extras.xattrs,
            born_ns=extras.born_ns,
            extensions=with_time(extras.extensions, draft.mtime_ns),
        )
