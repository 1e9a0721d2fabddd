"""Verify a log, of a running controller or in a file, and say what came of it in a row.

States: `ok`; `damaged` where something does not fit; `unsigned` where the controller did not
sign the newest entries although it was asked; `stale` for a file that ends before what this
profile has seen; `distrusted` for one that whoever stole an authority's key could have made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from controller.audit.chain import Broken, Entry, Head
from controller.audit.stories import Relation
from controller.audit.stories import compare as compare_marks
from controller.audit.trail import Mark, Walked, walk
from controller.authority.authority import load_certificate
from controller.cli.app import App
from controller.cli.audit.file import CheckpointLine, Header, read_lines
from controller.cli.audit.heads import SeenHeads
from controller.cli.audit.offline import open_header, verify_file
from controller.cli.audit.reading import (
    INSTALLATION_NAME,
    as_marks,
    fresh_checkpoint,
    last_number,
    read_checkpoints,
    read_entries,
    steps_of,
)
from controller.cli.operator.connection import Connection
from controller.cli.output.emit import note
from controller.cli.output.exits import REFUSED, UNREACHABLE, exit_code_of
from protocol.checkpoint import Checkpoint, open_checkpoint, render_log
from protocol.codec import read_revocations
from protocol.errors import Code, InvalidError, SteadError

Row = dict[str, Any]
SAY_EVERY = 50_000


def check_log(
    connection: Connection,
    seen: SeenHeads,
    log: str,
    name: str,
    *,
    heads: Collection[Head] = (),
    marks: Sequence[Mark] = (),
) -> Row:
    """Verify a log against what was signed, what this profile has seen, `heads` and `marks`."""
    count, size = 0, 0
    newest: tuple[bytes, Checkpoint] | None = None

    def steps() -> Iterator[Entry | Mark]:
        nonlocal count, size, newest
        # In this order: what is written in between is signed, too.
        size = last_number(connection, log)
        newest = fresh_checkpoint(connection, log)
        yield from marks
        until = 0
        if newest is not None:
            yield Mark(newest[1], "the newest checkpoint")
            until = newest[1].size
        checkpoints = read_checkpoints(connection, log, until=until)
        for step in as_marks(steps_of(read_entries(connection, log), checkpoints)):
            if isinstance(step, Entry):
                count += 1
                if count % SAY_EVERY == 0:
                    note(f"{name}: {count} entries")
            yield step

    try:
        result = walk(steps(), log, expected={*heads, *seen.heads(log)})
    except SteadError as error:
        if exit_code_of(error) in {UNREACHABLE, REFUSED} and error.code is not Code.BAD_SIGNATURE:
            # Who did not answer has said nothing about the log.
            raise
        result = Broken(count + 1, str(error))
    row = {"log": name, "entries": count, **_said(result)}
    if isinstance(result, Broken):
        if newest is not None:
            file = seen.keep_evidence(log, newest[0])
            note(f"{name}: what the controller signed is kept in {file}: see `stead audit compare`")
    elif result.covered < size:
        row["state"] = "unsigned"
        row["reason"] = (
            f"the controller did not sign the entries from {result.covered + 1} on, although it "
            "was asked; its log says why"
        )
    else:
        seen.save(log, result.head, None if newest is None else newest[0])
    return row


def check_marks(log: str, marks: Sequence[Mark]) -> Row:
    """What checkpoints of a log that cannot be read say about each other."""
    row = {"log": render_log(log), "entries": 0, "signed": 0, "head": ""}
    for verdict in compare_marks(marks, ()):
        if verdict.relation in {Relation.FORKED, Relation.SHRUNK}:
            assert verdict.other is not None
            reason = f"{verdict.relation}: {verdict.mark.of} and {verdict.other.of}"
            return {**row, "state": "damaged", "reason": reason}
    reason = "you may not read it; the witnesses do not contradict each other"
    return {**row, "state": "ok", "reason": reason}


def check_file(
    app: App, file: Path, *, heads: Collection[Head], tenant: str, root: Path | None
) -> Row:
    """Verify an export, against `heads` and what this profile has seen of that log.

    `tenant` is the id of the log that it must be of; empty for any. `root` is the root's
    certificate where there is no profile.
    """
    certificate = load_certificate(root or app.operator.root)
    header, newest = open_header(file, next(read_lines(file), None), certificate)
    if tenant and tenant != (newest.log or INSTALLATION_NAME):
        raise InvalidError(
            f"{file} is the log of {newest.log or INSTALLATION_NAME}, not of {tenant}; a tenant is "
            "named by its id here, as `stead tenant ls` shows it"
        )
    known = SeenHeads(app.operator.path / "audit").heads(newest.log)
    fitting = {one for one in known if one.seq <= newest.size}
    judged = verify_file(file, certificate, {*heads, *fitting})
    if judged.unmet & set(heads) and isinstance(judged.result, Walked):
        raise InvalidError("a filtered export does not show the entry of --head")
    if judged.unmet:
        note("the export is filtered, and does not show what your profile has seen")
    row = {"log": header.name, "entries": judged.entries, **_said(judged.result)}
    most = max((one.seq for one in known), default=0)
    if row["state"] == "ok" and most > newest.size:
        row["state"] = "stale"
        row["reason"] = f"your profile has seen {most} entries: it is older, or was cut"
    elif row["state"] == "ok" and _is_distrusted(app, header, certificate):
        row["state"] = "distrusted"
        row["reason"] = "an authority that the root believes no more signed it: export it anew"
    if judged.filtered:
        note("the export is filtered: that entries were left out cannot be noticed")
        row["head"] = ""
    return {**row, "checkpoint_at": newest.at, "id": newest.log or INSTALLATION_NAME}


def _is_distrusted(app: App, header: Header, root: x509.Certificate) -> bool:
    """Whether the checkpoint of an export is of an authority that this profile distrusts.

    Its certificate is in its time by the checkpoint's own clock, which a thief sets as he likes.
    """
    if not app.operator.revocations.exists():
        return False
    distrusted = read_revocations(app.operator.revocations.read_bytes(), root).distrusted
    try:
        open_checkpoint(CheckpointLine(header.checkpoint).data(), root, distrusted=distrusted)
    except SteadError as error:
        if error.code is not Code.DISTRUSTED:
            raise
        return True
    return False


def gone(log: str) -> Row:
    """The row of a log that the controller no longer lists."""
    reason = "it was verified before, and the controller no longer lists it"
    empty = {"entries": 0, "signed": 0, "head": ""}
    name = log or INSTALLATION_NAME
    return {"log": name, "state": "damaged", "reason": reason, **empty}


def _said(result: Walked | Broken) -> Row:
    if isinstance(result, Broken):
        reason = f"entry {result.seq}: {result.reason}"
        return {"state": "damaged", "signed": 0, "head": "", "reason": reason}
    at = f"{result.head.seq}:{result.head.hash.hex()}"
    return {"state": "ok", "signed": result.covered, "head": at, "reason": ""}
