"""Read patch plans and their results as machines report them, and say them to people.

Pure. The formats are those of the agent's patching: a plan's bytes are kept as they
came, since an order carries exactly what the operator was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from blake3 import blake3

from controller.cli.output.emit import Row, render_bytes
from protocol.errors import UNREADABLE, InvalidError

Who = tuple[str, str]
"""A machine's name and id."""

LOG_LINES = 25
"""So much of what a failed transaction printed is repeated."""


class Step(msgspec.Struct, frozen=True):
    """One package's share of a transaction; `old` or `new` is empty when it comes or goes."""

    change: str
    name: str
    arch: str
    old: str
    new: str
    origin: str
    reason: str
    download_bytes: int


class Plan(msgspec.Struct, frozen=True):
    """What of a plan is shown; fields of later releases stay in the bytes alone."""

    manager: str
    steps: tuple[Step, ...]
    download_bytes: int
    disk_change_bytes: int


class _Answer(msgspec.Struct, frozen=True):
    plan: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan with the bytes that an order to apply it carries."""

    data: bytes
    plan: Plan

    @property
    def digest(self) -> str:
        """BLAKE3 of the bytes, in hexadecimal: computed here, whatever the machine said."""
        return blake3(self.data).hexdigest()


def parse_proposal(result: bytes) -> Proposal:
    """Read a machine's answer to an order to plan; INVALID when it is none.

    >>> answer = b'{"plan":{"manager":"apt","steps":[],"download_bytes":0,'
    >>> parse_proposal(answer + b'"disk_change_bytes":0}}').plan.steps
    ()
    """
    try:
        data = bytes(msgspec.json.decode(result, type=_Answer).plan)
        return Proposal(data, msgspec.json.decode(data, type=Plan))
    except UNREADABLE as error:
        raise InvalidError(f"the machine's plan cannot be read: {error}") from error


def alike(proposals: Mapping[Who, Proposal]) -> dict[Proposal, list[Who]]:
    """The machines by their plan; plans are alike when every byte of them is."""
    groups: dict[Proposal, list[Who]] = {}
    for who, proposal in proposals.items():
        groups.setdefault(proposal, []).append(who)
    return groups


def step_rows(machine: str, proposal: Proposal) -> list[dict[str, Any]]:
    """The steps of a plan as records."""
    return [
        {
            "machine": machine,
            "change": step.change,
            "package": step.name,
            "arch": step.arch,
            "old": step.old,
            "new": step.new,
            "origin": step.origin,
            "reason": step.reason,
            "download_bytes": step.download_bytes,
            "plan": proposal.digest,
        }
        for step in proposal.plan.steps
    ]


def render_extent(proposal: Proposal) -> str:
    """How much a plan is, on one line."""
    plan = proposal.plan
    count = len(plan.steps)
    change = plan.disk_change_bytes
    disk = (
        f"{render_bytes(abs(change))} {'more' if change > 0 else 'less'}" if change else "as much"
    )
    return (
        f"{count} {'step' if count == 1 else 'steps'}, {render_bytes(plan.download_bytes)} to "
        f"fetch, {disk} on disk; plan {proposal.digest[:16]}"
    )


def package_cells(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """A table's column of packages, with the architecture where a name is there twice.

    >>> rows = [{"package": "libx", "arch": "amd64"}, {"package": "libx", "arch": "i386"}]
    >>> [package_cells(rows)["package"](row) for row in rows]
    ['libx:amd64', 'libx:i386']
    """
    arches: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        arches.setdefault(_whose(row), set()).add(str(row.get("arch")))

    def package(row: Row) -> str:
        name = str(row["package"])
        return f"{name}:{row.get('arch')}" if len(arches[_whose(row)]) > 1 else name

    return {"package": package}


def _whose(row: Row) -> tuple[str, str]:
    return str(row.get("machine")), str(row["package"])


def scan_fields(result: Row) -> dict[str, Any]:
    """What a scan came to; all None for one that failed."""
    at = result.get("refreshed_at")
    return {
        **{name: result.get(name) for name in ("updates", "security", "held")},
        "refreshed_at": datetime.fromisoformat(at) if isinstance(at, str) else None,
    }


def update_rows(machine: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Updates on offer, the security ones first, then what is held back and why."""
    updates: Sequence[Mapping[str, Any]] = facts.get("updates") or ()
    held: Sequence[Mapping[str, Any]] = facts.get("held") or ()
    for row in sorted(updates, key=lambda row: (not row.get("security"), row.get("name"))):
        source = " ".join(filter(None, (row.get("origin"), row.get("suite"))))
        yield {**_update(machine, row), "source": source, "held": ""}
    for row in held:
        yield {**_update(machine, row), "source": "", "held": row.get("reason", "")}


def result_rows(machine: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an applied plan came to, package by package."""
    rows = [_done(machine, step, "succeeded", "") for step in result.get("applied") or ()]
    for failed in result.get("failed") or ():
        why = failed.get("reason") or failed.get("state", "")
        rows.append(_done(machine, failed.get("step") or {}, "failed", why))
    return rows


def remarks_of(result: Mapping[str, Any]) -> list[str]:
    """What else a person must know of an applied plan."""
    said = []
    reboot = result.get("reboot") or {}
    if reboot.get("needed"):
        said.append(f"a restart is needed: {', '.join(reboot.get('reasons') or ())}")
    if kept := result.get("kept_conffiles"):
        said.append(f"changed configuration files were kept: {', '.join(kept)}")
    if missing := result.get("still_missing"):
        said.append(f"still on offer afterwards: {', '.join(missing)}")
    if unverified := result.get("unverified"):
        said.append(f"not verified: {unverified}")
    if result.get("failed") and (log := result.get("log_tail")):
        # What a package's script complained about stands here and nowhere else.
        last = [f"  {line}" for line in log.splitlines()[-LOG_LINES:]]
        said.append("\n".join(["the package manager printed last:", *last]))
    return said


def _update(machine: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "machine": machine,
        "package": row.get("name"),
        "arch": row.get("arch"),
        "installed": row.get("installed"),
        "candidate": row.get("candidate"),
        "security": bool(row.get("security")),
    }


def _done(machine: str, step: Mapping[str, Any], state: str, why: str) -> dict[str, Any]:
    return {
        "machine": machine,
        "package": step.get("name"),
        "arch": step.get("arch"),
        "change": step.get("change"),
        "old": step.get("old"),
        "new": step.get("new"),
        "state": state,
        "reason": why,
    }
