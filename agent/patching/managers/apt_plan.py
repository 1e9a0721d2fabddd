"""Turn what apt says into a scan and a plan with a reason per step.

Pure: everything was parsed before by `apt_parse`. Packages are keyed as apt names
them, `name` or `name:arch` for a foreign architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from agent.patching.managers.apt_parse import (
    DOWNGRADED,
    KEPT_BACK,
    PHASED,
    Archive,
    Installed,
    Policy,
    Release,
    Simulated,
    Simulation,
)
from agent.patching.plan import Change, PatchPlan, Step
from agent.patching.update import Held, Scan, Update

Archives = Mapping[tuple[str, str], Archive]

UNFINISHED = "{state}: an earlier transaction did not end; `dpkg --configure -a` ends it"
ON_HOLD = "on hold; `apt-mark unhold` releases it"
WAITS_FOR_PHASE = "its publisher offers it to a share of machines at a time, and not yet to this"
DOES_NOT_FIT = "it would remove packages, or needs something that is not on offer"


def updatable(
    installed: Mapping[str, Installed], policies: Mapping[str, Policy]
) -> dict[str, Policy]:
    """The policies of those packages that something newer is on offer for."""
    return {
        package: policy
        for package, policy in policies.items()
        if package in installed and policy.newer()
    }


def build_scan(
    installed: Mapping[str, Installed],
    policies: Mapping[str, Policy],
    releases: Mapping[str, Release],
    archives: Archives,
    simulation: Simulation,
    refreshed_at: datetime | None,
) -> Scan:
    """Everything on offer; `simulation` is that of upgrading all there is."""
    updates, held = [], []
    newer = updatable(installed, policies)
    for package, known in sorted(installed.items()):
        policy = newer.get(package)
        reason = _hold_reason(package, known, simulation, offered=policy is not None)
        candidate = policy.candidate if policy else known.version
        security = _is_security(policy, releases) if policy else False
        if reason and known.present:
            held.append(
                Held(
                    name=known.name,
                    arch=known.arch,
                    installed=known.version,
                    candidate=candidate,
                    security=security,
                    reason=reason,
                )
            )
        elif policy:
            release = _release(policy, releases)
            archive = archives.get((package, candidate))
            updates.append(
                Update(
                    name=known.name,
                    arch=known.arch,
                    installed=known.version,
                    candidate=candidate,
                    origin=release.origin,
                    suite=release.suite,
                    label=release.label,
                    security=security,
                    download_bytes=archive.size_bytes if archive else 0,
                    source=archive.source if archive else known.source,
                )
            )
    return Scan(manager="apt", updates=tuple(updates), held=tuple(held), refreshed_at=refreshed_at)


def _hold_reason(package: str, known: Installed, simulation: Simulation, *, offered: bool) -> str:
    if known.present and known.state != "installed":
        # Nothing is on offer for it, and yet the machine waits: silence would read as health.
        return UNFINISHED.format(state=known.state)
    if known.want == "hold":
        return ON_HOLD
    if offered and package in simulation.lists.get(PHASED, ()):
        return WAITS_FOR_PHASE
    if offered and package in simulation.lists.get(KEPT_BACK, ()):
        return DOES_NOT_FIT
    return ""


def _is_security(policy: Policy, releases: Mapping[str, Release]) -> bool:
    """A security archive offers the candidate or a version that it supersedes."""
    return any(
        releases.get(source, Release()).security
        for offered in policy.newer()
        for source in offered.sources
    )


def _release(policy: Policy, releases: Mapping[str, Release]) -> Release:
    """Where the candidate comes from, the security archive first when several have it."""
    candidate = policy.newer()[0]
    known = [releases[source] for source in candidate.sources if source in releases]
    return next((release for release in known if release.security), (known or [Release()])[0])


def build_plan(
    simulation: Simulation,
    installed: Mapping[str, Installed],
    archives: Archives,
    names: Sequence[str] | None,
    *,
    removals: bool,
) -> PatchPlan:
    """The transaction of a simulation as a plan; `names` are those requested."""
    chosen = {
        step.package: archive
        for step in simulation.steps
        if step.new and (archive := archives.get((step.package, step.new)))
    }
    removed = frozenset(step.package for step in simulation.steps if not step.new)
    steps = []
    download_bytes = disk_bytes = 0
    for step in simulation.steps:
        known = installed.get(step.package)
        archive = chosen.get(step.package)
        change = _change(step, simulation)
        download_bytes += archive.size_bytes if archive else 0
        disk_bytes += archive.installed_bytes if archive else 0
        disk_bytes -= known.size_bytes if known and known.present else 0
        if change is Change.REMOVE:
            reason = _removal_reason(step.package, known, chosen, removed)
        elif change is Change.DOWNGRADE:
            reason = "pinned below the installed version"
        else:
            reason = _reason(step, chosen, names)
        steps.append(
            Step(
                change=change,
                name=step.package.partition(":")[0],
                arch=step.arch or (known.arch if known else ""),
                old=step.old,
                new=step.new,
                origin=step.origin,
                reason=reason,
                download_bytes=archive.size_bytes if archive else 0,
                sha256=archive.sha256 if archive else "",
            )
        )
    return PatchPlan(
        manager="apt",
        requested=None if names is None else tuple(names),
        removals=removals,
        steps=tuple(sorted(steps, key=lambda step: (step.name, step.arch))),
        download_bytes=download_bytes,
        disk_change_bytes=disk_bytes,
    )


def _change(step: Simulated, simulation: Simulation) -> Change:
    if not step.new:
        return Change.REMOVE
    if not step.old:
        return Change.INSTALL
    down = step.package in simulation.lists.get(DOWNGRADED, ())
    return Change.DOWNGRADE if down else Change.UPGRADE


def _reason(step: Simulated, chosen: Mapping[str, Archive], names: Sequence[str] | None) -> str:
    if step.package in (names or ()):
        return "requested"
    if names is None and step.old:
        return "on offer"
    own = chosen.get(step.package)
    provided = {step.package.partition(":")[0], *(own.provides if own else ())}
    for package, archive in sorted(chosen.items()):
        if package != step.package and archive.depends & provided:
            return f"dependency of {package}"
    for package, archive in sorted(chosen.items()):
        if package != step.package and own and archive.source == own.source:
            return f"same source as {package}"
    return "needed by the other steps"


def _removal_reason(
    package: str,
    known: Installed | None,
    chosen: Mapping[str, Archive],
    removed: frozenset[str],
) -> str:
    name = package.partition(":")[0]
    for other, archive in sorted(chosen.items()):
        if name in archive.conflicts:
            return f"conflicts with {other}"
    for other in sorted(removed - {package}):
        if known and other.partition(":")[0] in known.depends:
            return f"depends on {other}, which is removed"
    return "does not fit the other steps"
