"""Read patch plans and their results as machines report them, and say them to people.

Pure. The formats are those of the agent's patching: a plan's bytes are kept as they
came, since an order carries exactly what the operator was shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from blake3 import blake3

from protocol.errors import InvalidError


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
    except msgspec.DecodeError as error:
        raise InvalidError(f"the machine's plan cannot be read: {error}") from error


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
        "change": step.get("change"),
        "old": step.get("old"),
        "new": step.get("new"),
        "state": state,
        "reason": why,
    }
