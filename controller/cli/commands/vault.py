"""`stead vault`: whether what is stored is whole, how much it is, and its index made anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.output.emit import emit_one, note, output_option
from controller.cli.output.exits import DONE, FAILED, IN_PART
from controller.cli.output.meter import meter
from controller.cli.vault.collecting import collect
from controller.cli.vault.look import look, say_look
from controller.cli.vault.scrub import scrub
from controller.cli.vault.stats import stats
from controller.db.database import Database
from controller.db.errors import DatabaseLockedError
from controller.store.local import LocalStore
from controller.vault.check import check as check_vault
from controller.vault.check import describe
from controller.vault.scrub.rebuild import rebuild as rebuild_vault
from controller.vault.scrub.repair import repair as repair_vault
from controller.vault.scrub.rounds import stored_bytes

SHOWN = 20


@click.group(epilog="Example: stead vault check")
def command() -> None:
    """Check, scrub and rebuild the vault, and say how much is in it."""


command.add_command(collect)
# By name: recovery stands above the controller and the agent, and uses both.
command.add_command(import_module("recovery.command").command)
command.add_command(scrub)
command.add_command(stats)


@command.command(epilog="Example: stead vault check --repair")
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Put what is damaged aside, so that the next backups send it again.",
)
@output_option
@click.pass_obj
def check(app: App, *, mend: bool, output: str) -> int:
    """Read everything that is stored and compare it with its hashes. Changes nothing.

    A running controller does it beside its backups; where it is stopped, it is done here.
    With --repair, damaged packs go to the quarantine folder of the store, what is whole of
    them is kept, and each machine's next backup reads everything and sends what is lost.
    """
    opened = _opened(app)
    if opened is None:
        return say_look(look(app.connection, "", mend=mend), output, mended=mend)
    with _closing(*opened) as (store, db):
        total = db.read_now(stored_bytes)
        repaired = None
        if mend:
            with meter("repair", total) as told:
                repaired = repair_vault(store, db, now=clock.now(), told=told)
            rebuild_vault(store, db, now=clock.now())
        with meter("check", total) as told:
            report = check_vault(store, db, told=told)
    faults = [describe(fault) for fault in report.faults]
    row = {
        "state": "damaged" if faults else "ok",
        "packs": report.packs,
        "chunks": report.chunks,
        "stored_bytes": report.bytes,
        "points": report.points,
        "unindexed": len(report.unindexed),
        "faults": faults if output != "table" else len(faults),
    }
    problems: list[str] = []
    if repaired is not None:
        problems = repaired.problems
        row |= dataclasses.asdict(repaired)
        row["problems"] = problems if output != "table" else len(problems)
    emit_one(row, output)
    if output == "table":
        _say_faults(faults, problems, mended=mend)
    if report.unindexed and not faults:
        note(
            f"{len(report.unindexed)} objects are not in the database: leftovers of a crash, "
            "which do no harm, or a lost index: `stead vault rebuild` takes them in"
        )
    return FAILED if faults or problems else DONE


def _say_faults(faults: list[str], problems: list[str], *, mended: bool) -> None:
    for said in [*problems, *faults][:SHOWN]:
        note(said)
    if len(faults) + len(problems) > SHOWN:
        note(f"and {len(faults) + len(problems) - SHOWN} more; --output json names all of them")
    if faults and mended:
        note(
            "what is in no pack any more is sent again by the next backup of a machine that "
            "still has it: start the controller, then `stead backup run all`"
        )
    elif faults:
        note("`stead vault check --repair` puts what is damaged aside and saves the rest")


@command.command(epilog="Example: stead vault rebuild")
@output_option
@click.pass_obj
def rebuild(app: App, output: str) -> int:
    """Make the database's index of the vault anew from what is stored.

    On the controller's own machine, while the controller is stopped.
    """
    with _closing(*_open(app)) as (store, db), meter("rebuild", unit="") as told:
        done = rebuild_vault(store, db, now=clock.now(), told=told)
    row = dataclasses.asdict(done)
    problems = row.pop("problems")
    emit_one({**row, "problems": problems if output != "table" else len(problems)}, output)
    for problem in problems if output == "table" else ():
        note(problem)
    return IN_PART if problems else DONE


def _opened(app: App) -> tuple[LocalStore, Database] | None:
    """What `_open` gives; None when a controller runs, here or on another machine."""
    if not app.controller.settings.exists() and app.operator.settings.exists():
        return None
    try:
        return _open(app)
    except DatabaseLockedError:
        return None


def _open(app: App) -> tuple[LocalStore, Database]:
    """Store and database of a controller that does not run; LOCKED when one does."""
    settings = app.controller.load_settings()
    objects = Path(settings.objects) if settings.objects else app.controller.objects
    db = Database.open(app.controller.database_url(settings))
    try:
        return LocalStore.open(objects), db
    except BaseException:
        db.close_now()
        raise


@contextmanager
def _closing(store: LocalStore, db: Database) -> Iterator[tuple[LocalStore, Database]]:
    try:
        yield store, db
    finally:
        db.close_now()
