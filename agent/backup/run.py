"""Make one restore point: walk, read, seal, send, sign, commit.

Nothing counts before the controller has acknowledged the commit. A run that was
interrupted is taken up under the same id, and what the vault holds is not sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from agent.backup.backed_up import BackupReport
from agent.backup.budget import Budget
from agent.backup.counts import Counts
from agent.backup.cut.sealers import Sealers
from agent.backup.cut.sealing import Sealing
from agent.backup.cut.stream import SmallStream
from agent.backup.owners import Owners, names_hash
from agent.backup.scan.assemble import Assembly
from agent.backup.scan.detect import MAX_LINKS, Detection, UnprovenError
from agent.backup.scan.earlier import Earlier
from agent.backup.scan.groups import Groups
from agent.backup.scan.probe import Probe
from agent.backup.scan.rows import Scan
from agent.backup.scan.sample import Sample
from agent.backup.scan.signs import Counting
from agent.backup.scan.visit import Visit
from agent.backup.select.choose import Choice
from agent.backup.select.commands import Streams, check_commands
from agent.backup.select.places import normalise
from agent.backup.select.pseudo import read_pseudo_devices
from agent.backup.select.set_hash import set_hash
from agent.backup.select.walk import Walk
from agent.backup.send.committing import commit
from agent.backup.send.control import Control
from agent.backup.send.record import signed_record
from agent.backup.send.upload import PATIENCE_S, Upload, begin_patiently, patiently
from agent.backup.send.vault import Session, Vault
from agent.backup.skipped import SkippedList, reason_of, shown
from agent.backup.tree.merge import merge
from agent.backup.tree.nodes import Block, StateDamagedError
from agent.backup.tree.place import Expected, Memory, Run
from agent.backup.tree.plant import Planter
from agent.backup.tree.state import Header, Previous, StateWriter
from agent.backup.who import Who
from agent.host import clock
from agent.watch.evidence import Handover, Why
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.selection import NO_COMMANDS, Commands, Rules
from protocol.vault.chunk import Opener, Sealer
from protocol.vault.cut import Cutter
from protocol.vault.node import Root
from protocol.vault.point import Totals
from protocol.vault.sizes import BIG

EVERYTHING = Rules(no_defaults=True)
RACY_NS = 2_000_000_000
_PROGRESS_S = 0.3
_CERTAIN = 0.98
"""With more than so much left, how long it will take is anybody's guess."""


class Backup:
    """One backup of normalised or raw absolute `paths`. Call `run` once.

    `top` is the directory that counts as "/". Time stamps younger than `racy_ns` before
    the scan are not trusted next time: file systems count in steps of up to two seconds.
    `progress` is told a few times a second. `sealers` are left to whoever made them;
    without any, threads seal. `handed` is what was watched since the last run, `off` the
    file that notes where that was found wanting. `rules` leave things out below the paths.
    `limit_upload` is in bytes a second, 0 is none. `control` says when to wait.
    Of `commands` the streams are run here.
    """

    def __init__(
        self,
        paths: Iterable[bytes],
        *,
        who: Who,
        vault: Vault,
        memory: Memory,
        seed: random.Random,
        progress: Callable[[Mapping[str, Any]], None],
        patience_s: float = PATIENCE_S,
        top: bytes = b"/",
        racy_ns: int = RACY_NS,
        sealers: Sealers | None = None,
        handed: Handover | None = None,
        off: Path | None = None,
        rules: Rules = EVERYTHING,
        limit_upload: int = 0,
        control: Control | None = None,
        commands: Commands = NO_COMMANDS,
    ) -> None:
        paths = tuple(paths)
        self._paths = normalise(paths)
        if not self._paths:
            raise InvalidError("there is nothing to back up; name at least one path")
        self._who = who
        self._vault = vault
        self._earlier = Earlier(vault, who.secret, seed, patience_s=patience_s)
        self._memory = memory
        self._seed = seed
        self._progress = progress
        self._patience_s = patience_s
        self._top = top
        self._racy_ns = racy_ns
        self._sealers = sealers
        self._streams = check_commands(commands, paths)
        self._command_limit_s = commands.limit_s
        self._rules = set_hash(self._paths, rules, self._streams, who.secret)
        self._exclusions = rules
        self._limit_upload = limit_upload
        self._control = control or Control()
        self._begun = clock.monotonic()
        self._seconds: dict[str, float] = {}
        self._next_word = 0.0
        self._expected: Expected | None = None
        self._detection = Detection(self._paths, handed, off)
        self._goes_on_from = ""

    def run(self) -> BackupReport:
        """Make the restore point.

        Raises NOT_FOUND when none of the paths exists, LOCKED, `UnavailableError` when
        the controller stayed away, and what the controller refused with.
        """
        self._control.hold(lambda: None)
        with self._memory.locked():
            forced = Why.UNCOMMITTED if self._memory.is_interrupted() else None
            forced = Why.CHOICE if self._exclusions.ask_more_than_names else forced
            run = self._memory.take_up(self._rules)
            run, session = self._begin(run)
            use_state, is_renamed = True, False
            while True:
                try:
                    return self._attempt(run, session, use_state=use_state, forced=forced)
                except UnprovenError as error:
                    forced = error.why
                except SteadError as error:
                    if error.code is Code.ALREADY_EXISTS and not is_renamed:
                        # A commit of another record under this id was cut short, and the
                        # controller could not take that in: what is told has its own id.
                        self._memory.next_state.unlink(missing_ok=True)
                        run, session, is_renamed = *self._begin_anew(), True
                        continue
                    lost = isinstance(error, StateDamagedError) or error.code is Code.CHUNK_MISSING
                    if not use_state or not lost:
                        raise
                    # What the last run left, here or in the vault, is gone: read everything,
                    # send what is missing.
                    use_state, forced = False, Why.DAMAGED
                session = self._open(run)

    def _begin(self, run: Run) -> tuple[Run, Session]:
        try:
            return run, self._open(run)
        except SteadError as error:
            if error.code not in (Code.ALREADY_EXISTS, Code.SESSION_LOST):
                raise
        # Committed in a run that did not live to hear of it, or overtaken by another.
        return self._begin_anew()

    def _begin_anew(self) -> tuple[Run, Session]:
        run = self._memory.start(self._rules)
        return run, self._open(run)

    def _open(self, run: Run) -> Session:
        return begin_patiently(self._vault, run.point, self._seed, patience_s=self._patience_s)

    def _attempt(
        self, run: Run, session: Session, *, use_state: bool, forced: Why | None
    ) -> BackupReport:
        started_at = clock.now()
        self._control.settle(begun=False)
        self._expected = self._memory.expected(self._rules)
        skipped = SkippedList()
        names = names_hash()
        memory = self._memory
        newest = session.parent_point if use_state else ""
        previous = memory.previous(newest, self._rules)
        self._goes_on_from = newest if previous.head is not None else ""
        whole = previous.header is not None and previous.header.names == names
        now_ns = int(started_at.timestamp() * 1_000_000_000)
        choice = Choice(self._exclusions, now_ns=now_ns)
        walk = Walk(
            self._paths,
            skipped,
            own=frozenset([bytes(self._memory.path.resolve()).lstrip(b"/")]),
            pseudo=read_pseudo_devices(),
            start=self._top,
            choice=choice,
        )
        streams = Streams(self._streams, self._command_limit_s, now_ns)
        secret = self._who.secret
        header = Header(run.point, self._rules, names)
        why = self._detection.decide(memory, previous, header, newest, forced)
        upload = Upload(
            self._vault,
            session,
            run.point,
            self._seed,
            patience_s=self._patience_s,
            limit=self._limit_upload,
            control=self._control,
        )
        self._lap("begin")
        with (
            StateWriter(memory.next_state, header, previous, memory.fresh_nodes()) as state,
            upload,
        ):
            with self._seal_with() as sealers, Sealing(secret, sealers, upload.give) as sealing:
                stream = SmallStream(secret.gear_seed, sealing)
                planter = Planter(secret, upload.give, state, previous)
                scan = Scan(
                    assembly=Assembly(planter, stream),
                    stream=stream,
                    sealing=sealing,
                    sealer=Sealer(secret),
                    cutter=Cutter(secret.gear_seed, *BIG),
                    give=upload.give,
                    old_extents=self._earlier.extents,
                    owners=Owners(),
                    skipped=skipped,
                    sample=Sample(self._seed, previous.entries),
                    probe=Probe(self._seed),
                    seed=self._seed,
                    safe_ns=now_ns - self._racy_ns,
                    tick=lambda: self._tick("read", scan.counts, upload),
                    groups=Groups(self._top, memory.path / "names"),
                    streams=streams,
                    budget=Budget(previous.content_bytes),
                    signs=Counting(_files_of(previous), self._seed),
                )
                try:
                    if why is None:
                        dirty = self._detection.dirty(previous)
                        scan.take(Visit(walk, previous, dirty, self._paths, self._top, streams))
                        self._look_again(scan, previous)
                    else:
                        scan.take(
                            merge(streams.among(walk, self._top), previous, whole_leaves=whole)
                        )
                        walk.directories += len(streams.folders)
                    evidence = self._detection.evidence(previous, scan.groups.left(MAX_LINKS))
                finally:
                    previous.close()
                    scan.groups.close()
                scan.signs.active = scan.signs.active and not previous.damaged
                if not walk.found_paths:
                    raise NotFoundError(
                        "none of the paths to back up is there: " + skipped.summary()
                    )
                root, top = planter.finish()
            self._lap("read")
            self._next_word = 0.0
            self._tick("send", scan.counts, upload)
            session = upload.finish(lambda: self._tick("send", scan.counts, upload))
            self._check_parent(session)
            self._lap("send")
            unsound = patiently(
                lambda: tuple(scan.sample.mismatches(self._vault, Opener(secret))),
                self._seed,
                patience_s=self._patience_s,
            )
            self._lap("sample")
            if unsound and why is None:
                self._detection.found_wanting(unsound[0])
            # Without a head nobody goes on from it, also when this run dies in its commit.
            if not unsound:
                state.finish(top, directories=walk.directories, skipped=skipped, evidence=evidence)
        totals = self._totals(root, top, walk, scan.counts, skipped, upload, scan.signs)
        record = signed_record(
            self._who,
            session,
            point=run.point,
            rules=self._rules,
            paths=self._paths,
            detector=self._detection.detector,
            started_at=started_at,
            root=root,
            totals=totals,
            skipped=skipped,
        )
        self._control.hold(upload.keep)
        self._control.settle()
        received_at = commit(
            self._vault,
            session,
            record,
            self._seed,
            patience_s=self._patience_s,
            check=self._check_parent,
        )
        expected = Expected(self._rules, root.entries, root.bytes)
        is_kept = not unsound and state.problem is None
        self._memory.committed(expected, adopt=is_kept, evidence=evidence)
        self._lap("commit")
        return BackupReport(
            run.point,
            received_at,
            root,
            scan.counts,
            skipped,
            unsound,
            upload.new_chunks,
            upload.new_bytes,
            planter.reused_leaves,
            upload.lost_links,
            self._detection.detector,
            tuple(self._detection.missed),
            top.streamed,
            choice.as_json(shown) if why is not None else [],
            self._seconds,
            "" if state.problem is None else reason_of(state.problem),
        )

    def _look_again(self, scan: Scan, previous: Previous) -> None:
        found = scan.probe.look(previous, self._top, self._detection.before_ns)
        if found.missed:
            self._detection.found_wanting(found.missed[0])
            raise UnprovenError(Why.MISSED)
        scan.sample.add(found.taken)

    def _seal_with(self) -> AbstractContextManager[Sealers]:
        return nullcontext(self._sealers) if self._sealers else Sealers(self._who.secret)

    def _totals(
        self,
        root: Root,
        top: Block,
        walk: Walk,
        counts: Counts,
        skipped: SkippedList,
        upload: Upload,
        signs: Counting,
    ) -> Totals:
        return Totals(
            entries=root.entries,
            files=root.files,
            directories=walk.directories,
            bytes=root.bytes,
            skipped=skipped.count,
            read_files=counts.read_files,
            read_bytes=counts.read_bytes,
            new_chunks=upload.new_chunks,
            new_bytes=upload.new_bytes,
            new_plain_bytes=upload.new_plain_bytes,
            signs=signs.result(root.files, self._earlier.dense_share),
            stream_bytes=top.streamed,
        )

    def _check_parent(self, session: Session) -> None:
        """Raise `StateDamagedError` where a session begun anew names another point to go on from.

        It names none when the vault has lost chunks since, and nobody asks for what lies
        below a node that is taken over.
        """
        if self._goes_on_from and session.parent_point != self._goes_on_from:
            raise StateDamagedError("the controller knows another restore point by now")

    def _lap(self, phase: str) -> None:
        now = clock.monotonic()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._begun
        self._begun = now

    def _tick(self, phase: str, counts: Counts, upload: Upload) -> None:
        self._control.hold(upload.keep)
        now = clock.monotonic()
        if now < self._next_word:
            return
        self._next_word = now + _PROGRESS_S
        elapsed = max(now - self._begun, 0.001)
        # In this order: a narrow terminal shows the beginning.
        said: dict[str, Any] = {"phase": phase}
        if phase == "read" and self._expected is not None:
            left = self._expected.left(counts.entries, counts.bytes)
            if left is not None and left < _CERTAIN:
                said["eta"] = round(elapsed * left / (1 - left), 1)
        said |= {
            "rate": int(counts.bytes / elapsed),
            "files": counts.files,
            "bytes": counts.bytes,
            "sent_bytes": upload.new_bytes,
            "new_bytes": upload.new_bytes,
        }
        self._progress(said)


def _files_of(previous: Previous) -> int | None:
    return None if previous.head is None else previous.head.top.node().files
