"""The terms on which an order is carried out: the options that acting commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import rich_click as click

from controller import clock
from controller.cli.options.repeating import render_standing, standing_of
from controller.cli.options.spans import Span
from controller.cli.options.spreading import ROLLOUT_OPTIONS, WINDOW_OPTIONS, rollout_of
from protocol.errors import InvalidError
from protocol.rollout import Rollout
from protocol.standing import Standing
from protocol.window import render_window

F = TypeVar("F", bound=Callable[..., Any])
WITHIN = timedelta(hours=24)
WITHIN_WINDOWS = timedelta(days=8)
"""So that every day of the week comes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How an order is to be carried out; the options that acting commands share."""

    wait: bool
    deliver_by: timedelta
    timeout: timedelta
    reason: str
    yes: bool
    dry_run: bool
    tenant: str
    rollout: Rollout | None = None
    windows: tuple[str, ...] = ()
    catch_up: bool = False
    standing: Standing | None = None
    propose: bool = False
    wait_for_approval: bool = False


def acting_within(timeout: str) -> Callable[[F], F]:
    """Add the options that every command that acts on machines takes; see `acting`."""
    options = [
        click.option("--tenant", metavar="NAME", default="", help="Only machines of this tenant."),
        click.option(
            "--wait/--no-wait",
            default=None,
            help="Wait for the end (default); --wait waits for another operator's approval, too.",
        ),
        click.option(
            "--deliver-by",
            type=Span(),
            help="Do not start it later than this.  [default: 24h, with --window 8d]",
        ),
        click.option(
            "--timeout",
            type=Span(),
            default=timeout,
            show_default=True,
            help="End the execution after this time.",
        ),
        *ROLLOUT_OPTIONS,
        *WINDOW_OPTIONS,
        click.option("--reason", default="", help="Why; kept in the audit log."),
        click.option(
            "--yes", "-y", is_flag=True, help="Do not ask before acting on several machines."
        ),
        click.option(
            "--propose",
            is_flag=True,
            help="Hand in what your role may not order, for somebody else to approve.",
        ),
        click.option("--dry-run", is_flag=True, help="Show what would be ordered; order nothing."),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def acting(command: F) -> F:
    """Add the options that every command that acts on machines takes."""
    return acting_within("1h")(command)


def terms_of(options: Mapping[str, Any]) -> Terms:
    """The terms among a command's options."""
    plain = {name: options[name] for name in ("timeout", "reason", "yes", "dry_run", "propose")}
    windows = tuple(map(render_window, options["windows"]))
    if options["catch_up"] and not windows:
        raise InvalidError("--catch-up is for windows that were missed: add --window")
    now = clock.now()
    standing = standing_of(options, now)
    within = WITHIN_WINDOWS if windows else WITHIN
    if standing is not None:
        # A machine that comes back later is still to have it.
        within = standing.ends_at - now
    return Terms(
        **plain,
        wait=options["wait"] is not False,
        wait_for_approval=options["wait"] is True,
        tenant=options["tenant"],
        standing=standing,
        deliver_by=options["deliver_by"] or within,
        rollout=rollout_of(options),
        windows=windows,
        catch_up=options["catch_up"],
    )


def render_terms(terms: Terms) -> str:
    """How often an order is carried out and in which hours, for people."""
    return render_standing(terms.standing) + render_windows(terms)


def render_windows(terms: Terms) -> str:
    """The windows of an order, for people; empty when it has none."""
    if not terms.windows:
        return ""
    missed = ", or at once when none opens in time" if terms.catch_up else ""
    return f", within {'; '.join(terms.windows)} of each machine's own time{missed}"
