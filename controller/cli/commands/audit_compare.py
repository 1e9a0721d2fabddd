"""`stead audit compare`: hold against each other what several were told about the logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from cryptography import x509

from controller.audit.chain import Broken
from controller.audit.stories import Relation, Verdict, Whole
from controller.audit.stories import compare as compare_marks
from controller.cli.app import App
from controller.cli.audit.heads import SeenHeads
from controller.cli.audit.offline import first_difference, verify_file
from controller.cli.audit.sources import Told, gather
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE, FAILED, IN_PART
from protocol.checkpoint import render_log

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = ("log", "source", "entries", "signed_at", "state", "reason")
_FILE = click.Path(dir_okay=False, path_type=Path)


def root_certificate_option(command: F) -> F:
    """Add `--root-certificate FILE` to a command that needs no profile."""
    return click.option(
        "--root-certificate",
        "root",
        type=_FILE,
        help="The installation's root certificate, where there is no profile: an auditor's way.",
    )(command)


@click.command(epilog="Example: stead audit compare ann.audit bob.audit web-01.witness")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@root_certificate_option
@output_option
@click.pass_obj
def compare(app: App, files: tuple[Path, ...], root: Path | None, output: str) -> int:
    """Compare what several people and machines were told about the logs; asks no controller.

    FILES are exports, what `stead audit witness --output-file` wrote, and the files `witness`
    of agents, in any number. What your profile keeps takes part. A fork is proven when two
    signed checkpoints cannot both be of one log: the exit code is 1. It is 3 when nobody here
    has the entries that would decide.
    """
    from controller.authority.authority import load_certificate

    certificate = load_certificate(root or app.operator.root)
    found = gather(files, certificate, SeenHeads(app.operator.path / "audit"))
    for line in found.alarms:
        note(f"alarm: {line}")
    rows = []
    for log in found.logs():
        rows += _rows_of(log, found.of_log(log), certificate)
    emit(rows, output, columns=COLUMNS, empty="nobody has anything that was signed")
    states = {row["state"] for row in rows}
    if found.alarms or states & {"damaged", Relation.FORKED, Relation.SHRUNK}:
        return FAILED
    return DONE if states == {Relation.AGREES} else IN_PART


def _rows_of(log: str, told: Sequence[Told], root: x509.Certificate) -> list[dict[str, Any]]:
    """A row for each checkpoint of one log."""
    sizes = {one.mark.checkpoint.size for one in told}
    wholes: dict[Path, Whole] = {}
    damaged: dict[Path, str] = {}
    for one in told:
        if one.export:
            judged = verify_file(one.file, root, sizes=sizes)
            if isinstance(judged.result, Broken):
                damaged[one.file] = f"entry {judged.result.seq}: {judged.result.reason}"
            elif not judged.filtered:
                wholes[one.file] = Whole(judged.result.states)
    verdicts = compare_marks([one.mark for one in told], [*wholes.values()])
    files = {id(one.mark): one.file for one in told if one.file in wholes}
    rows = []
    for one, verdict in zip(told, verdicts, strict=True):
        state, reason = _words(verdict, files, max(sizes))
        if one.export and one.file in damaged:
            state, reason = "damaged", damaged[one.file]
        said = one.mark.checkpoint
        row = {"source": one.mark.of, "entries": said.size, "signed_at": said.at}
        rows.append({"log": render_log(log), **row, "state": state, "reason": reason})
    return rows


def _words(verdict: Verdict, wholes: Mapping[int, Path], most: int) -> tuple[str, str]:
    """State and reason of a verdict. `wholes` are the files of whole logs, by their marks."""
    if verdict.relation is None:
        return "alone", "nobody else says anything about this log"
    if verdict.relation is Relation.AGREES or verdict.other is None:
        return verdict.relation, ""
    other = verdict.other.of
    if verdict.relation is Relation.UNKNOWN:
        reason = f"{other} may be the same log: a whole export of {most} entries or more decides"
    elif verdict.relation is Relation.SHRUNK:
        reason = (
            f"the shorter of this and {other} was signed later: the log was cut in between, or the "
            "controller's clock was set back"
        )
    else:
        reason = f"no log can be this and {other}" + _parting(verdict, wholes)
    return verdict.relation, reason


def _parting(verdict: Verdict, wholes: Mapping[int, Path]) -> str:
    """Where two logs part, when both are there whole."""
    mine, theirs = wholes.get(id(verdict.mark)), wholes.get(id(verdict.other))
    found = None if mine is None or theirs is None else first_difference(mine, theirs)
    if found is None:
        return ""
    here, there = (f"{one.event} by {one.actor}" for one in found)
    return f": from entry {found[0].sequence} on, {here} here and {there} there"
