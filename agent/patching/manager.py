"""The port that every package manager fills.

Synchronous: the caller is a short-lived worker process. Everything raises
`SteadError`; the classes in `agent.patching.errors` say what a caller can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent.patching.plan import PatchPlan, Step
from agent.patching.update import Scan


class FailedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that did not end as planned, and how the package was left.

    `state` is the package manager's own word (`half-configured`, `not-installed`),
    `installed` the version that is there now, empty for none.
    """

    step: Step
    state: str
    installed: str
    reason: str


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """How a transaction ended; every step of its plan is in `done` or in `failed`.

    `kept_conffiles` are configuration files that were changed on the machine and
    left as they are although the package brought a new one. `problem` is what the
    package manager complained about, empty when it did not. `log_tail` is the end of
    what it printed, at most `LOG_TAIL_CHARS` characters.
    """

    done: tuple[Step, ...]
    failed: tuple[FailedStep, ...]
    kept_conffiles: tuple[str, ...]
    problem: str
    log_tail: str


class RebootNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether updates wait for a restart of the machine, and which."""

    needed: bool
    reasons: tuple[str, ...]


LOG_TAIL_CHARS = 16_384


class PackageManager(Protocol):
    """The package manager that owns a machine's system packages."""

    @property
    def name(self) -> str:
        """The manager's name as plans and scans carry it, such as `apt`."""

    def refresh(self) -> None:
        """Renew the lists of what is on offer, from repositories whose signature is right.

        Raises `RepositoryUnreachableError`, `RepositoryUntrustedError`,
        `PackagesLockedError`, `DiskFullError`.
        """

    def scan(self) -> Scan:
        """What is on offer by the lists as they are; changes nothing."""

    def plan(self, names: Sequence[str] | None, *, removals: bool = False) -> PatchPlan:
        """The exact transaction for updating `names`, or everything; changes nothing.

        The same request gives an equal plan as long as lists and machine stay the same.
        Raises `PackageNotInstalledError`, `PackageHeldError`, `DependenciesBrokenError`, and
        `RemovalRefusedError` when packages would go and `removals` does not allow it.
        """

    def check_health(self) -> None:
        """Raise `PackagesInterruptedError` when an earlier transaction did not end."""

    def apply(self, plan: PatchPlan) -> Applied:
        """Carry out exactly this plan.

        Raises when nothing was changed: `PackagesLockedError`, `PackagesInterruptedError`,
        `PlanChangedError`, `RepositoryUnreachableError`, `RepositoryUntrustedError`,
        `DiskFullError`.
        A transaction that stopped half way returns, with its failed steps.
        """

    def reboot_needed(self) -> RebootNeed:
        """Whether the machine has to restart for updates to take effect."""
