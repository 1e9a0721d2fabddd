"""Compare a part of a restore point with this machine, as an order asks, and read only."""

from __future__ import annotations

import os
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.actions.obeying import obeying
from agent.actions.restore import grants_of, sealing_key_of
from agent.backup.frugal import save_time_and_memory
from agent.backup.restore.fetch import Fetcher
from agent.backup.restore.flow import Flow
from agent.backup.restore.live import Found, Live, Unseen, is_at_or_below, listings_of
from agent.backup.run import EVERYTHING
from agent.backup.select.choose import Choice
from agent.backup.select.commands import check_commands
from agent.backup.select.places import normalise
from agent.backup.select.pseudo import read_pseudo_devices
from agent.backup.select.set_hash import set_hash
from agent.backup.select.walk import Walk
from agent.backup.send.wire import GrpcVault
from agent.backup.tree.place import Memory
from agent.host import clock
from protocol.action import CompareLive, RunBackup
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.outcome import OutcomeState
from protocol.selection import BY_DEFAULT, NO_COMMANDS, Commands, Rules
from protocol.vault.chunk import Opener, Sealer
from protocol.vault.comparison import Difference, Page, Terms, open_terms, seal_page
from protocol.vault.entry import Extent
from protocol.vault.keys import VaultSecret
from protocol.vault.reader import TreeReader

ANSWER_BYTES: Final = 3 * 1024 * 1024
"""Of sealed pages; what is found beyond is counted and not named."""

_PAGE: Final = 4_000
_PAGE_BYTES: Final = 1024 * 1024
"""Of a page before it is compressed, but for the last thing in it; readers take four times that."""

_FIXED_BYTES: Final = 200
"""At most, of what is told of a difference beside its names and where links lead."""

_SKIPPED: Final = 200
_PROGRESS_S: Final = 0.3
_PATIENCE_S: Final = 600.0
_TOP: Final = b"/"


@dataclass(slots=True)
class Answer:
    """Pages as they fill, up to `ANSWER_BYTES`."""

    terms: Terms
    machine: str
    point: str
    added: int = 0
    removed: int = 0
    changed: int = 0
    untold: int = 0
    pages: list[bytes] = field(default_factory=list)
    _waiting: list[Difference] = field(default_factory=list)
    _waiting_bytes: int = 0
    _size: int = 0

    def add(self, one: Difference) -> None:
        """Count a difference, and tell it while there is room."""
        self.added += one.old is None
        self.removed += one.new is None
        self.changed += one.old is not None and one.new is not None
        if self._size >= ANSWER_BYTES:
            self.untold += 1
            return
        self._waiting.append(one)
        self._waiting_bytes += _size_of(one)
        if len(self._waiting) >= _PAGE or self._waiting_bytes >= _PAGE_BYTES:
            self._seal((), is_last=False)

    def finish(self, unseen: Unseen) -> None:
        """Seal the last page."""
        skipped: list[tuple[bytes, str]] = []
        size = 0
        for one in unseen.kept[:_SKIPPED]:
            size += len(one.path) + len(one.reason)
            if size > _PAGE_BYTES:
                break
            skipped.append((one.path, one.reason))
        self._seal(tuple(skipped), is_last=True)

    def _seal(self, skipped: tuple[tuple[bytes, str], ...], *, is_last: bool) -> None:
        page = Page(tuple(self._waiting), skipped, is_last)
        self._waiting.clear()
        self._waiting_bytes = 0
        number = len(self.pages)
        sealed = seal_page(page, number, self.terms, machine=self.machine, point=self.point)
        self._size += len(sealed)
        self.pages.append(sealed)


def _size_of(one: Difference) -> int:
    sides = [side for side in (one.old, one.new) if side is not None]
    told = sum(len(side.target) + 4 * (len(side.user) + len(side.group)) for side in sides)
    return len(one.parent) + len(one.name) + told + sum(map(len, one.what)) + _FIXED_BYTES


class _PatientReader(TreeReader):
    """Calls `hold`, which may wait, before each piece of a file that somebody goes through."""

    def __init__(self, secret: VaultSecret, fetcher: Fetcher, hold: Callable[[], None]) -> None:
        super().__init__(Opener(secret), fetcher.nodes)
        self._hold = hold

    def extents(self, extents: Sequence[Extent], depth: int) -> Iterator[Extent]:
        """See `TreeReader.extents`."""
        for one in super().extents(extents, depth):
            self._hold()
            yield one


def execute(action: CompareLive, place: Workplace) -> ActionResult:
    """Compare what the order's grants name. PARTIAL when some of it could not be looked at,
    or when there is more to tell than an answer holds.

    Raises `SealedError` when something was sealed for another, PRECONDITION when this
    machine has no keys, NOT_FOUND when the path is neither here nor there, and what is
    wrong with a node of the tree.
    """
    save_time_and_memory()
    terms = open_terms(
        sealing_key_of(place.home),
        action.sealed_terms,
        tenant=place.tenant,
        machine=place.machine,
        point=action.point_id,
    )
    answer = Answer(terms, place.machine, action.point_id)
    unseen = Unseen(_TOP)
    paths = normalise(terms.paths)
    told = 0.0
    seen = 0
    known = True

    def hold() -> None:
        place.control.hold(lambda: None)

    def tick(counts: Mapping[str, int]) -> None:
        nonlocal told
        hold()
        now = clock.monotonic()
        if now >= told:
            told = now + _PROGRESS_S
            place.progress({"phase": "compare", **counts})

    def is_meant(path: bytes) -> bool:
        return any(is_at_or_below(path, one) or is_at_or_below(one, path) for one in paths)

    with ExitStack() as stack:
        stack.enter_context(obeying(place, "it has changed nothing"))
        vault = GrpcVault(stack.enter_context(place.channel()))
        if len(action.sealed_references) != 1:
            raise InvalidError("the order carries not just one reference; sign it again")
        ((grant, secret),) = grants_of(action.point_id, action.sealed_references, place)
        rules = rules_by_hash(action.rules, paths, secret, place.of_set)
        known = rules is not None
        seed = random.Random(os.urandom(16))  # noqa: S311 - spreads retries
        flow = Flow(place.control)
        fetcher = stack.enter_context(
            Fetcher(vault, secret, seed, patience_s=_PATIENCE_S, flow=flow)
        )
        live = Live(
            _PatientReader(secret, fetcher, hold),
            fetcher,
            Sealer(secret),
            unseen,
            is_meant,
            content=action.content,
            quick=action.quick,
            tick=tick,
        )
        walk = Walk(
            paths,
            unseen,
            own=frozenset([bytes(Memory(place.home.cache / "backup").path.resolve())[1:]]),
            pseudo=read_pseudo_devices(),
            start=_TOP,
            choice=Choice(BY_DEFAULT if rules is None else rules, now_ns=clock.wall_ns()),
        )

        def tree() -> Iterator[Found]:
            nonlocal seen
            for found in live.reader.read(*grant.spans):
                seen += 1
                yield found

        for one in live.differences(tree(), listings_of(walk, action.path, paths, _TOP)):
            answer.add(one)
    if not seen and not live.entries:
        shown = action.path.decode(errors="backslashreplace")
        raise NotFoundError(f"/{shown} is neither in the restore point nor on the machine")
    answer.finish(unseen)
    return result_of(answer, unseen, rules_known=known)


def rules_by_hash(
    wanted: bytes,
    paths: tuple[bytes, ...],
    secret: VaultSecret,
    of_set: Callable[[], RunBackup],
) -> Rules | None:
    """The rules that a restore point of these paths was made by; None when they are not known.

    Those of the machine's backup set are known, and those of a backup that names none.
    """
    known: list[tuple[Rules, Commands]] = [(BY_DEFAULT, NO_COMMANDS), (EVERYTHING, NO_COMMANDS)]
    try:
        by_set = of_set()
        known.insert(0, (by_set.rules, by_set.commands))
    except SteadError as error:
        if error.code not in (Code.NOT_FOUND, Code.DENIED):
            raise
    for rules, commands in known:
        if set_hash(paths, rules, check_commands(commands, ()), secret) == wanted:
            return rules
    return None


def result_of(answer: Answer, unseen: Unseen, *, rules_known: bool) -> ActionResult:
    """How a comparison ended; names are in the sealed pages alone."""
    body: dict[str, Any] = {
        "added": answer.added,
        "removed": answer.removed,
        "changed": answer.changed,
        "untold": answer.untold,
        "rules_known": rules_known,
        "skipped": unseen.missing,
        "pages": [b64encode(page).decode() for page in answer.pages],
    }
    said = f"{answer.added} added, {answer.removed} removed, {answer.changed} changed"
    state = OutcomeState.SUCCEEDED
    if unseen.missing:
        state, said = OutcomeState.PARTIAL, f"{said}; {unseen.missing} could not be looked at"
    if answer.untold:
        state = OutcomeState.PARTIAL
        said = f"{said}; {answer.untold} are not named: compare a folder at a time"
    return ActionResult(state, msgspec.json.encode(body), message=said)
