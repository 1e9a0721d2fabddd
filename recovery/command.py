"""`stead vault recover`: restore from nothing but stored objects and the recovery key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from controller import clock
from controller.authority.authority import load_certificate
from controller.cli.orders.restored import say_not_backed_up
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.entries import text_of
from controller.cli.output.exits import DONE, IN_PART
from controller.cli.output.meter import meter
from controller.cli.points.chosen import LATEST, choose
from protocol.errors import InvalidError, NotFoundError
from protocol.vault.path import is_path, join
from protocol.vault.point import known
from recovery.objects import Listing, Objects, list_objects
from recovery.points import Found, Recoverable, every_key, recoverable

if TYPE_CHECKING:
    from agent.backup.skipped import Skipped
    from recovery.restore import How

SHOWN = 20
LISTED = "`stead vault recover` without --to lists them"


@click.command(
    "recover",
    epilog="Example: stead vault recover --objects /mnt/vault --key acme.key --to /srv/back",
)
@click.argument("point", default=LATEST)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--objects", required=True, type=click.Path(path_type=Path), help="The vault's directory."
)
@click.option(
    "--key",
    "keys",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The recovery key: TENANT.key, or a text file with the paper key. May be repeated.",
)
@click.option("--machine", default="", metavar="ID", help="Whose; needed when there are several.")
@click.option("--to", type=click.Path(path_type=Path), help="Restore into this directory.")
@click.option("--root", type=click.Path(path_type=Path), help="The root's certificate, if at hand.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option(
    "--owners",
    type=click.Choice(["name", "number", "none"]),
    default="name",
    help="Whom things belong to; by number where a name is not known.",
)
@click.option("--verify", is_flag=True, help="Compare the content of what looks the same.")
@click.option("--flags", is_flag=True, help="Set immutable and append-only flags again.")
@output_option
def command(
    point: str,
    paths: tuple[str, ...],
    objects: Path,
    keys: tuple[Path, ...],
    machine: str,
    to: Path | None,
    root: Path | None,
    output: str,
    *,
    overwrite: bool,
    owners: str,
    verify: bool,
    flags: bool,
) -> int:
    """Restore with neither controller nor database, from objects and recovery key alone.

    Without --to, lists the machines and restore points that the key opens. Whatever is
    damaged is named, and all else is restored; the exit code is then 3. Run it as root to
    get owners and devices back as they were.
    """
    if point.startswith("/"):
        point, paths = LATEST, (point, *paths)
    listing = list_objects(objects)
    certificate = None if root is None else load_certificate(root)
    found = recoverable(listing.points, every_key(keys, listing.links), certificate)
    _say_left_out(found, listing)
    if not found.points:
        raise NotFoundError("the key opens none of the restore points: is it this tenant's?")
    if root is None:
        note("the machines' certificates are not checked; --root names the root's certificate")
    if to is None:
        _list(found.points, output)
        return IN_PART if found.left_out or listing.unread else DONE
    chosen = _chosen(found.points, machine, point)
    certain = _is_certain(found, listing, chosen, point)
    wanted = [_tree_path(path) for path in paths] or [b""]
    _check_target(to, objects, wanted)
    # The engine is the agent's: it is loaded only by who restores.
    from agent.backup.restore.belonging import owners_of
    from recovery.restore import How

    how = How(overwrite, owners_of(owners), flags, verify)
    code = _restore(listing, chosen, wanted, to, how, output)
    return code if certain else code or IN_PART


def _say_left_out(found: Found, listing: Listing) -> None:
    for problem in listing.unread[:SHOWN]:
        note(f"{problem.name} cannot be listed: {problem.reason}")
    if len(listing.unread) > SHOWN:
        note(f"and {len(listing.unread) - SHOWN} more folders")
    for one in found.left_out[:SHOWN]:
        note(f"restore point {one.key.point} is left out: {one.reason}")
    if len(found.left_out) > SHOWN:
        note(f"and {len(found.left_out) - SHOWN} more restore points")
    for tenant, count in sorted(found.of_others.items()):
        note(f"{tenant}: {count} restore points are sealed to another key than those given")


def _list(points: Sequence[Recoverable], output: str) -> None:
    rows = [_row(one) for one in points]
    if output != "table":
        emit(rows, output, columns=())
        return
    for machine in sorted({row["machine"] for row in rows}):
        emit(
            [row for row in rows if row["machine"] == machine],
            output,
            columns=("point", "started_at", "files", "bytes", "paths"),
            cells={**SIZES, "paths": lambda row: " ".join(row["paths"])},
            title=machine,
        )


def _is_certain(found: Found, listing: Listing, chosen: Recoverable, name: str) -> bool:
    """Whether `name` means the chosen one beyond doubt; says what the doubt is otherwise."""
    machine = chosen.point.machine
    if chosen.id.startswith(name.strip().lower()):
        return True
    followed = {one.point.previous for one in found.points} if name == LATEST else set()
    ahead = [
        one.id
        for one in found.points
        if one.point.machine == machine and _is_ahead(one) and one.hash not in followed
    ]
    if ahead:
        note(
            f"the clock of {machine} was ahead when it made {', '.join(ahead[:SHOWN])}: which "
            "restore point came after which may not be what their times say; name one by its id"
        )
    missing = any(one.key.machine == machine for one in found.left_out)
    missing = missing or not listing.knows_points_of(chosen.point.tenant, machine)
    if missing:
        note(
            f"{name} is {chosen.id} of those that are left: one that was left out may be what "
            "was meant; name one by its id if it is not"
        )
    return not missing and not ahead


def _is_ahead(one: Recoverable) -> bool:
    return one.point.started_at > clock.now()


def _row(one: Recoverable) -> dict[str, Any]:
    totals = one.point.totals
    return {
        "machine": one.point.machine,
        "tenant": one.point.tenant,
        "point": one.id,
        "started_at": one.point.started_at,
        "files": totals.files,
        "bytes": totals.bytes,
        "stream_bytes": known(totals.stream_bytes),
        "skipped": totals.skipped,
        "paths": list(map(text_of, one.contents.paths)),
    }


def _chosen(points: Sequence[Recoverable], machine: str, name: str) -> Recoverable:
    machines = sorted({one.point.machine for one in points})
    found = [one for one in points if not machine or one.point.machine.startswith(machine)]
    if not found:
        raise NotFoundError(f"no restore point is of {machine}; there are: {', '.join(machines)}")
    if len({one.point.machine for one in found}) > 1:
        raise InvalidError(f"name one of the machines with --machine: {', '.join(machines)}")
    whose = found[0].point.machine
    return choose(found, name, machine=whose, now=clock.now(), listing=LISTED)


def _tree_path(text: str) -> bytes:
    path = text.encode(errors="surrogateescape").strip(b"/")
    if not is_path(path):
        raise InvalidError(f"{text[:200]!r} cannot be a path in a restore point")
    return path


def _check_target(to: Path, objects: Path, wanted: Sequence[bytes]) -> None:
    """INVALID where two paths would become one, and inside of the objects themselves."""
    arrived: dict[bytes, bytes] = {}
    for path in wanted:
        name = path.rpartition(b"/")[2]
        if name in arrived or (arrived and b"" in (name, *arrived)):
            raise InvalidError(
                f"/{text_of(path)} would arrive where another path does: recover it alone, into "
                "another directory"
            )
        arrived[name] = path
    if to.resolve().is_relative_to(objects.resolve()):
        raise InvalidError(f"{to} lies in the vault itself, which is only read: name another --to")


def _make(to: Path) -> None:
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidError(
            f"{to} cannot be restored into: {(error.strerror or str(error)).lower()}; name "
            "another directory"
        ) from error


def _restore(
    listing: Listing,
    chosen: Recoverable,
    wanted: Sequence[bytes],
    to: Path,
    how: How,
    output: str,
) -> int:
    from agent.backup.restore.durable import Written
    from agent.backup.skipped import KEPT
    from recovery.restore import restore_path, spans_of

    files = [file for key, file in listing.packs if key.tenant == chosen.point.tenant]
    with Objects() as objects, Written() as written:
        with meter("index", len(files), unit="") as told:
            objects.take_in(files, told)
        for problem in objects.problems:
            note(f"pack {problem.name}: {problem.reason}")
        total: dict[str, Any] = {
            "point": chosen.id,
            "target": str(to),
            "files": 0,
            "bytes": 0,
            "left": 0,
            "warned": 0,
        }
        left: list[str] = []
        warned: list[str] = []
        with meter("recover", chosen.contents.root.bytes) as told:

            def progress(said: Mapping[str, Any]) -> None:
                told(float(said.get("bytes", 0)))

            # All of them are looked for before anything is written.
            found = [(path, spans_of(chosen, path, objects)) for path in wanted]
            _make(to)
            for path, spans in found:
                done = restore_path(
                    chosen, path, spans, to, objects, how, written=written, progress=progress
                )
                total["files"] += done.files
                total["bytes"] += done.bytes
                total["left"] += done.failed.count
                total["warned"] += done.warnings.count
                above = path.rpartition(b"/")[0]
                left += [_said(above, one) for one in done.failed.kept]
                warned += [_said(above, one) for one in done.warnings.kept]
        written.make_durable()
    if output != "table":
        total |= {"failed": left, "warnings": warned, "damaged_packs": len(objects.problems)}
    emit([total], output, columns=("point", "files", "bytes", "left"), cells=SIZES)
    if output == "table":
        for said in [*left, *warned][:SHOWN]:
            note(said)
        more = total["left"] + total["warned"] - SHOWN
        if more > 0:
            note(f"and {more} more; --output json names up to {KEPT:,} of each kind")
    say_not_backed_up(chosen.contents.skipped, wanted)
    return IN_PART if total["left"] else DONE


def _said(above: bytes, one: Skipped) -> str:
    """A sentence about a thing, by the path that it has in the restore point."""
    path = join(above, one.path) if one.path else above
    return f"/{text_of(path)}: {one.reason.partition('; run `stead')[0]}"


SIZES = {"bytes": lambda row: render_bytes(row["bytes"])}
