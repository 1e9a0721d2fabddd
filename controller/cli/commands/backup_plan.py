"""`stead backup plan`: what a backup would take and leave out, before one is made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machines_meant
from controller.cli.options.choosing import choosing, rules_of
from controller.cli.options.commanding import commanding, commands_of
from controller.cli.options.terms import acting_within, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, result_of, say_failures, task_rows
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.exits import DONE
from protocol.action import PlanBackup
from protocol.errors import InvalidError

_SHOWN = 10


@click.command(epilog="Example: stead backup plan web-01 --path /srv --exclude '*.iso'")
@click.argument("selector")
@click.option("--path", "paths", multiple=True, help="Instead of the backup set; may be repeated.")
@choosing
@commanding
@acting_within("1h")
@output_option
@click.pass_obj
def plan(app: App, /, selector: str, paths: tuple[str, ...], output: str, **options: Any) -> int:
    """Show what a backup would take, and what is left out by which rule; make none.

    The machine walks as a backup does, reads no file and runs no program: those that would
    run are named. Without paths, rules and programs it is its backup set.
    """
    terms = terms_of(options)
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise InvalidError(f"{path[:200]!r} is not an absolute path")
    raw = tuple(path.encode(errors="surrogateescape") for path in paths)
    action = PlanBackup(raw, rules_of(options), commands_of(options))
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return DONE
    say_failures(job)
    plans = [
        {**row, **result_of(task)} for row, task in zip(task_rows(job), job.tasks, strict=True)
    ]
    if output != "table":
        emit(plans, output, columns=())
    else:
        lines = [line for one in plans for line in plan_lines(one)]
        emit(lines, output, columns=("machine", "what", "files", "size"), empty="no plan arrived")
    for one in plans:
        for left in (one.get("skipped_paths") or [])[:_SHOWN]:
            note(f"{one['machine']}: {left['path']}: {left['reason']}")
    return exit_code(job)


def plan_lines(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """A plan as lines of a table: each path, the sum, and each rule that leaves out.

    >>> plan_lines({"machine": "web", "files": 1, "bytes": 0, "paths": [], "left_out": []})
    [{'machine': 'web', 'what': 'to back up', 'files': '1', 'size': '0 B'}]
    """
    if plan.get("files") is None:
        return []
    machine = str(plan["machine"])

    def line(what: str, files: int, size: int) -> dict[str, str]:
        return {
            "machine": machine,
            "what": what,
            "files": str(files),
            "size": render_bytes(size),
        }

    lines = [line(one["path"], one["files"], one["bytes"]) for one in plan["paths"]]
    lines.append(line("to back up", plan["files"], plan["bytes"]))
    for one in plan.get("streams") or ():
        program = shlex.join(one["program"])
        what = f"{one['path']}, printed by {program}"
        lines.append({"machine": machine, "what": what, "files": "1", "size": "not known"})
    for when in ("before", "after"):
        if argv := plan.get(when):
            what = f"{when} it runs {shlex.join(argv)}"
            lines.append({"machine": machine, "what": what, "files": "", "size": ""})
    for left in plan["left_out"]:
        folders = left["directories"]
        more = f" and {folders} folders" if folders else ""
        lines.append(
            line(f"without {left['rule']}{more}", left["entries"] - folders, left["bytes"])
        )
    return lines
