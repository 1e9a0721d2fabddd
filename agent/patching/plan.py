"""The exact transaction that an operator sees, signs and gets.

Pure. A plan is made by a package manager from its own simulation; here it is
encoded, named by its digest, and compared with what the same request would do now.
"""

from __future__ import annotations

from enum import StrEnum

import blake3
import msgspec

from protocol.errors import UNREADABLE, InvalidError


class Change(StrEnum):
    """What a step does to a package."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    REMOVE = "remove"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One package's share of a transaction.

    `old` is empty for an install, `new` and `sha256` for a removal. `sha256` is the
    archive's digest from the repository's signed index, in hexadecimal; it makes a
    version that was published twice with different content a different step.
    """

    change: Change
    name: str
    arch: str
    old: str
    new: str
    origin: str
    reason: str
    download_bytes: int
    sha256: str


class PatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction with a reason per step, ordered by name and architecture.

    `requested` are the names that were asked for, `None` for every update on offer;
    `removals` says whether the request allowed removing packages. `download_bytes`
    counts every archive, also one that lies in the machine's cache already.
    """

    manager: str
    requested: tuple[str, ...] | None
    removals: bool
    steps: tuple[Step, ...]
    download_bytes: int
    disk_change_bytes: int

    def removed(self) -> tuple[str, ...]:
        """Names of the packages that the transaction removes."""
        return tuple(step.name for step in self.steps if step.change is Change.REMOVE)

    def digest(self) -> str:
        """BLAKE3 over the canonical JSON, in hexadecimal: what an order names."""
        return blake3.blake3(encode_plan(self)).hexdigest()


def encode_plan(plan: PatchPlan) -> bytes:
    """The canonical JSON of a plan: sorted keys, no white space, UTF-8."""
    return msgspec.json.encode(plan, order="sorted")


def decode_plan(data: bytes) -> PatchPlan:
    """The plan that `encode_plan` encoded; raises `InvalidError` for anything else."""
    try:
        return msgspec.json.decode(data, type=PatchPlan)
    except UNREADABLE as error:
        raise InvalidError(f"this is not a patch plan: {error}") from error


def find_differences(ordered: PatchPlan, current: PatchPlan) -> tuple[str, ...]:
    """What a transaction would do now that differs from what was ordered, one a line."""
    found = [
        f"{what} was {then!r} and is {now!r}"
        for what, then, now in (
            ("manager", ordered.manager, current.manager),
            ("requested", ordered.requested, current.requested),
            ("removals", ordered.removals, current.removals),
        )
        if then != now
    ]
    then_by = {(step.name, step.arch): step for step in ordered.steps}
    now_by = {(step.name, step.arch): step for step in current.steps}
    for key in sorted(then_by.keys() | now_by.keys()):
        then_step, now_step = then_by.get(key), now_by.get(key)
        if then_step is None and now_step is not None:
            found.append(f"{render_step(now_step)}: is new")
        elif now_step is None and then_step is not None:
            found.append(f"{render_step(then_step)}: is gone")
        elif then_step is not None and now_step is not None and then_step != now_step:
            found.append(_step_difference(then_step, now_step))
    if not found and ordered != current:
        found.append(
            f"sizes: {ordered.download_bytes} B to fetch and {ordered.disk_change_bytes:+} B "
            f"on disk became {current.download_bytes} B and {current.disk_change_bytes:+} B"
        )
    return tuple(found)


def _step_difference(then: Step, now: Step) -> str:
    if render_step(then) != render_step(now):
        return f"{render_step(then)}: became {render_step(now)}"
    if then.sha256 != now.sha256:
        return f"{render_step(then)}: the archive's content changed"
    return f"{render_step(then)}: its origin, size or reason changed"


def render_step(step: Step) -> str:
    """A step on one line, without its reason."""
    package = f"{step.change} {step.name}:{step.arch}"
    if step.change is Change.REMOVE:
        return f"{package} {step.old}"
    return f"{package} {step.old} -> {step.new}" if step.old else f"{package} {step.new}"


def render_plan(plan: PatchPlan) -> str:
    """A plan for people: what a dry run prints and an operator signs."""
    lines = [f"patch plan {plan.digest()}"]
    lines += [
        f"  {render_step(step)}  ({step.reason}{'; ' if step.origin else ''}{step.origin})"
        for step in plan.steps
    ]
    if not plan.steps:
        lines.append("  nothing to do")
    lines.append(f"  {plan.download_bytes} B to fetch, {plan.disk_change_bytes:+} B on disk")
    return "\n".join(lines) + "\n"
