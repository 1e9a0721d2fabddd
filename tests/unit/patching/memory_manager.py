"""A package manager in memory: the fake that passes the port's contract suite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.patching.errors import (
    DependenciesBrokenError,
    PackageHeldError,
    PackageNotInstalledError,
    PackagesInterruptedError,
    PlanChangedError,
    RemovalRefusedError,
)
from agent.patching.manager import Applied, FailedStep, RebootNeed
from agent.patching.plan import Change, PatchPlan, Step, find_differences
from agent.patching.update import Held, Scan, Update

SIZE = 1000


@dataclass(frozen=True)
class Offer:
    version: str
    security: bool = False
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    fails: bool = False
    content: str = ""


@dataclass
class MemoryManager:
    """Versions compare as text; `published` is on offer after `refresh`."""

    name: str = "memory"
    published: dict[str, Offer] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    installed: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    half_done: set[str] = field(default_factory=set)
    asks_restart: set[str] = field(default_factory=set)
    refreshed_at: datetime | None = None

    def refresh(self) -> None:
        self.offers = dict(self.published)
        self.refreshed_at = datetime(2026, 1, 1, tzinfo=UTC)

    def _newer(self) -> dict[str, Offer]:
        return {
            name: offer
            for name, offer in sorted(self.offers.items())
            if name in self.installed and offer.version > self.installed[name]
        }

    def scan(self) -> Scan:
        newer = self._newer()
        updates = [
            Update(
                name=name,
                arch="all",
                installed=self.installed[name],
                candidate=offer.version,
                origin="Test",
                suite="stable",
                label="Test",
                security=offer.security,
                download_bytes=SIZE,
                source=name,
            )
            for name, offer in newer.items()
            if name not in self.held
        ]
        held = [
            Held(
                name=name,
                arch="all",
                installed=self.installed[name],
                candidate=newer[name].version if name in newer else self.installed[name],
                security=name in newer and newer[name].security,
                reason="on hold",
            )
            for name in sorted(self.held)
        ]
        return Scan(
            manager=self.name,
            updates=tuple(updates),
            held=tuple(held),
            refreshed_at=self.refreshed_at,
        )

    def plan(self, names: Sequence[str] | None, *, removals: bool = False) -> PatchPlan:
        for name in names or ():
            if name not in self.installed:
                raise PackageNotInstalledError([name])
            if name in self.held:
                raise PackageHeldError([name], f"release {name}")
        newer = self._newer()
        chosen = sorted(set(newer) - self.held) if names is None else sorted(set(names))
        if names is None and not removals:
            chosen = [name for name in chosen if not self._pushed_out(newer[name])]
        steps: dict[str, Step] = {}
        for name in chosen:
            if name in newer:
                self._add(steps, name, "on offer" if names is None else "requested")
        gone = tuple(name for name, step in steps.items() if step.change is Change.REMOVE)
        if gone and not removals:
            raise RemovalRefusedError(gone)
        return PatchPlan(
            manager=self.name,
            requested=None if names is None else tuple(chosen),
            removals=removals,
            steps=tuple(steps[name] for name in sorted(steps)),
            download_bytes=SIZE * (len(steps) - len(gone)),
            disk_change_bytes=0,
        )

    def _pushed_out(self, offer: Offer) -> set[str]:
        return set(offer.conflicts) & set(self.installed)

    def _add(self, steps: dict[str, Step], name: str, reason: str) -> None:
        offer = self.offers.get(name)
        if offer is None:
            raise DependenciesBrokenError(f"{name} is not on offer")
        old = self.installed.get(name, "")
        content = f"{name} {offer.version} {offer.content}".encode()
        steps[name] = Step(
            change=Change.UPGRADE if old else Change.INSTALL,
            name=name,
            arch="all",
            old=old,
            new=offer.version,
            origin="Test:stable",
            reason=reason,
            download_bytes=SIZE,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for other in sorted(self._pushed_out(offer)):
            steps[other] = Step(
                change=Change.REMOVE,
                name=other,
                arch="all",
                old=self.installed[other],
                new="",
                origin="",
                reason=f"conflicts with {name}",
                download_bytes=0,
                sha256="",
            )
        for other in offer.depends:
            if other not in self.installed and other not in steps:
                self._add(steps, other, f"dependency of {name}")

    def check_health(self) -> None:
        if self.half_done:
            findings = [f"{name} is half-configured" for name in sorted(self.half_done)]
            raise PackagesInterruptedError(findings, "repair")

    def apply(self, plan: PatchPlan) -> Applied:
        self.check_health()
        now = self.plan(plan.requested, removals=plan.removals)
        if now != plan:
            raise PlanChangedError(find_differences(plan, now))
        done, failed = [], []
        for step in plan.steps:
            if step.change is Change.REMOVE:
                del self.installed[step.name]
            else:
                self.installed[step.name] = step.new
            if step.new and self.offers[step.name].fails:
                self.half_done.add(step.name)
                failed.append(
                    FailedStep(
                        step=step, state="half-configured", installed=step.new, reason="status 3"
                    )
                )
            else:
                done.append(step)
        return Applied(
            done=tuple(done),
            failed=tuple(failed),
            kept_conffiles=(),
            problem="a script failed" if failed else "",
            log_tail="",
        )

    def reboot_needed(self) -> RebootNeed:
        reasons = tuple(f"{name} asks for it" for name in sorted(self.asks_restart))
        return RebootNeed(needed=bool(reasons), reasons=reasons)
