"""Which machine a name meant before: what a profile remembers, so that no other one is meant now.

An order names machines by id, and which id belongs to a name the controller says. One in a
stranger's hands could have an operator sign for another machine than the one that was meant.
So a profile keeps the name and the id of each machine that an order was given for, and of each
that was renamed here; where the controller says something else by now, the operator is asked,
and where nobody is there to ask, nothing is signed. `--yes` is no answer to this. The first
time it is the controller's word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import rich_click as click

from controller.authority.durable import replace_durably
from controller.cli.output.emit import note, printable
from controller.config import OperatorHome
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.v1.operator_pb2 import Machine

Names = Mapping[str, str]
"""The ids of a tenant's machines by their names."""

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A machine of which the controller says something else than it did before.

    `meant` is the id that the name stood for, `called` what the machine was called; empty for
    what was never heard of.
    """

    name: str
    machine: str
    meant: str
    called: str

    def in_words(self) -> str:
        """What was, and what is said now."""
        said = f"{self.name} is {self.machine}"
        if self.meant and self.called:
            return f"{said}, which was called {self.called}, and was {self.meant}"
        if self.meant:
            return f"{said}, and was {self.meant}"
        return f"{said}, which was called {self.called}"


def changes_in(known: Names, machines: Iterable[Machine]) -> list[Change]:
    """What is said otherwise than before: another id for a name, or another name for an id."""
    called = {machine: name for name, machine in known.items()}
    found = []
    for one in machines:
        meant, before = known.get(one.name, ""), called.get(one.machine_id, "")
        if (meant or one.machine_id, before or one.name) != (one.machine_id, one.name):
            another = meant if meant != one.machine_id else ""
            found.append(Change(one.name, one.machine_id, another, before))
    return found


def learnt(known: Names, machines: Sequence[Machine]) -> dict[str, str]:
    """The names with those of these machines as they are said now."""
    ids = {one.machine_id for one in machines}
    kept = {name: machine for name, machine in known.items() if machine not in ids}
    return {**kept, **{one.name: one.machine_id for one in machines}}


def check_recognised(
    home: OperatorHome, machines: Sequence[Machine], *, dry_run: bool = False
) -> None:
    """Remember these machines, all of one tenant; ask about those that were others before.

    Raises PRECONDITION when there is nobody to ask; exits when the person says no. A dry run
    signs nothing, so it only says so.
    """
    every = _load(home)
    tenant = machines[0].tenant_id if machines else ""
    known = every.get(tenant, {})
    if changes := changes_in(known, machines):
        _say(changes)
        if not dry_run:
            _ask(changes)
    if not dry_run:
        _keep(home, every, tenant, known, machines)


def recognise(home: OperatorHome, machines: Sequence[Machine]) -> list[Change]:
    """Take the controller's word for these machines' names; what was said otherwise before."""
    every, changes = _load(home), []
    for tenant in sorted({one.tenant_id for one in machines}):
        known, those = every.get(tenant, {}), [one for one in machines if one.tenant_id == tenant]
        changes += changes_in(known, those)
        _keep(home, every, tenant, known, those)
    return changes


def _keep(
    home: OperatorHome,
    every: dict[str, dict[str, str]],
    tenant: str,
    known: Names,
    machines: Sequence[Machine],
) -> None:
    # Of two commands at once the later one may forget what the other has just learnt: then it
    # is learnt again.
    new = learnt(known, machines)
    if new != known:
        every[tenant] = new
        replace_durably(home.names, msgspec.json.encode(every, order="sorted"))


def _say(changes: Sequence[Change]) -> None:
    for one in changes[:SHOWN]:
        note(f"The controller says something else than before: {one.in_words()}.")
    if len(changes) > SHOWN:
        note(f"It does so of {len(changes) - SHOWN} more.")


def _ask(changes: Sequence[Change]) -> None:
    if not sys.stdin.isatty():
        raise SteadError(
            f"nothing was signed, since the controller says that {changes[0].in_words()}. Where "
            "machines were renamed or enrolled anew, take its word with "
            f"`stead machine recognise {changes[0].name}`; else look at who has the controller",
            code=Code.PRECONDITION,
        )
    question = f"Were these {len(changes)} renamed or enrolled anew, as far as you know?"
    click.confirm(printable(question), abort=True, err=True)


def _load(home: OperatorHome) -> dict[str, dict[str, str]]:
    if not os.path.lexists(home.names):
        return {}
    try:
        return msgspec.json.decode(home.names.read_bytes(), type=dict[str, dict[str, str]])
    except (OSError, *UNREADABLE) as error:
        raise InvalidError(
            f"{home.names} cannot be read: {error}; it guards against other names for machines. "
            "Put it back from a copy, or remove it to begin anew"
        ) from error
