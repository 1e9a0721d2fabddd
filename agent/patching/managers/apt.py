"""Debian's and Ubuntu's package manager, by its own programs.

Only argument lists and files are handled here; what the programs print is read in
`apt_parse`, `apt_errors` and `apt_plan`. Nothing asks a question: configuration
files that were changed on the machine stay, and are reported.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.host.process import Finished, ProgramError, Run, run
from agent.patching.errors import (
    DependenciesBrokenError,
    PackageHeldError,
    PackageNotInstalledError,
    PackagesInterruptedError,
    PlanChangedError,
    RemovalRefusedError,
)
from agent.patching.manager import Applied, RebootNeed
from agent.patching.managers.apt_errors import REPAIR, classify
from agent.patching.managers.apt_outcome import LogTail, build_applied, build_unseen
from agent.patching.managers.apt_parse import (
    QUERY_FORMAT,
    Archive,
    Installed,
    Simulation,
    parse_archives,
    parse_audit,
    parse_installed,
    parse_policies,
    parse_releases,
    parse_simulation,
    qualify,
)
from agent.patching.managers.apt_plan import build_plan, build_scan, updatable
from agent.patching.managers.apt_root import Root
from agent.patching.managers.reboot import judge_reboot
from agent.patching.plan import Change, PatchPlan, find_differences
from agent.patching.update import Scan
from protocol.errors import InvalidError, SteadError

QUERY_SECONDS = 120.0
REFRESH_SECONDS = 900.0
# Killing dpkg half way is worse than waiting; this only ends what hangs for good.
APPLY_SECONDS = 4 * 3600.0

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?::[a-z0-9][a-z0-9-]*)?")
# One option list for the simulation and the real thing, so that both decide alike.
_DECIDE = (
    "-o",
    "APT::Get::AutomaticRemove=false",
    "-o",
    "APT::Get::Show-User-Simulation-Note=false",
)
_UPGRADE_ALL: tuple[str, ...] = ("--with-new-pkgs", "upgrade")
_REMOVE_TOO: tuple[str, ...] = ("dist-upgrade",)
_QUIET_DPKG = (
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=0",
)


@dataclass(frozen=True, slots=True)
class Apt:
    """apt-get, apt-cache and dpkg on this machine or in a private root."""

    run: Run = run
    root: Root = field(default_factory=Root)
    on_output: Callable[[bytes], None] | None = None

    @property
    def name(self) -> str:
        """See `PackageManager`."""
        return "apt"

    def refresh(self) -> None:
        """See `PackageManager`."""
        # Without this mode apt-get reports a repository that it cannot reach as success.
        mode = ("-o", "APT::Update::Error-Mode=any")
        done = self._start("apt-get", "-q", *mode, "update", timeout=REFRESH_SECONDS)
        said = _text(done)
        if done.code != 0 or "W: Failed to fetch" in said:
            raise classify(said)
        stamp = self.root.success_stamp
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()

    def scan(self) -> Scan:
        """See `PackageManager`."""
        native = self._native()
        installed = self._installed(native)
        present = sorted(name for name, known in installed.items() if known.present)
        releases = parse_releases(self._read("apt-cache", "policy"))
        policies = parse_policies(self._read("apt-cache", "policy", *present) if present else "")
        newer = updatable(installed, policies)
        archives = self._archives(
            [(package, policy.candidate) for package, policy in newer.items()], native
        )
        return build_scan(
            installed,
            policies,
            releases,
            archives,
            self._simulate(*_UPGRADE_ALL),
            self._refreshed_at(),
        )

    def plan(self, names: Sequence[str] | None, *, removals: bool = False) -> PatchPlan:
        """See `PackageManager`. A name may carry an architecture, as in `libc6:i386`."""
        native = self._native()
        installed = self._installed(native)
        wanted = None if names is None else self._wanted(names, installed, native)
        if wanted is None:
            request = _REMOVE_TOO if removals else _UPGRADE_ALL
        else:
            request = ("--only-upgrade", "install", "--", *wanted)
        simulation = self._simulate(*request) if wanted != () else Simulation(())
        archives = self._archives(
            [(step.package, step.new) for step in simulation.steps if step.new], native
        )
        plan = build_plan(simulation, installed, archives, wanted, removals=removals)
        if plan.removed() and not removals:
            raise RemovalRefusedError(plan.removed())
        return plan

    def check_health(self) -> None:
        """See `PackageManager`."""
        # What dpkg did since it last rewrote its status lies in numbered files; it
        # leaves them there only when it was ended half way.
        journal = self.root.database / "updates"
        try:
            left = [entry.name for entry in journal.iterdir() if entry.name.isdigit()]
        except FileNotFoundError:
            left = []
        findings = [f"{len(left)} entries in {journal}"] if left else []
        findings += parse_audit(self._read("dpkg", f"--admindir={self.root.database}", "--audit"))
        if findings:
            raise PackagesInterruptedError(findings, REPAIR)

    def apply(self, plan: PatchPlan) -> Applied:
        """See `PackageManager`."""
        self.check_health()
        if not plan.steps:
            return Applied(done=(), failed=(), kept_conffiles=(), problem="", log_tail="")
        native = self._native()
        before = self._installed(native)
        request = self._pin(plan, native)
        self._check_exact(plan, request, before, native)
        automatic = set(self._read("apt-mark", "showauto").split())
        tail = LogTail(self.on_output)
        problem: SteadError | None = None
        try:
            done = self._start(
                "apt-get", "-y", "-q", *request, timeout=APPLY_SECONDS, on_output=tail.add
            )
        except ProgramError as error:
            problem = error
        else:
            problem = classify(tail.text()) if done.code != 0 else None
        try:
            after = self._installed(native)
        except SteadError as error:
            return build_unseen(plan, problem, error, tail.text())
        if problem is not None and before == after:
            raise problem
        marks = self._restore_marks(plan, automatic, after, native)
        said = "; ".join(filter(None, (str(problem or ""), marks)))
        return build_applied(plan, before, after, native, said, tail.text())

    def reboot_needed(self) -> RebootNeed:
        """See `PackageManager`."""
        flag = self.root.path / "run/reboot-required"
        names = flag.with_suffix(".pkgs")
        boot = self.root.path / "boot"
        return judge_reboot(
            flagged=flag.exists(),
            packages=names.read_text(errors="replace").split() if names.exists() else (),
            # A private root has no running kernel of its own.
            running="" if self.root.private else platform.release(),
            images=[entry.name for entry in boot.glob("vmlinuz-*")],
        )

    def _start(
        self, *argv: str, timeout: float, on_output: Callable[[bytes], None] | None = None
    ) -> Finished:
        return self.run(*argv, timeout=timeout, env=self.root.env, on_output=on_output)

    def _read(self, *argv: str) -> str:
        """What a program printed that only looks, whose failure is named if it fails."""
        done = self._start(*argv, timeout=QUERY_SECONDS)
        if done.code != 0:
            raise classify(_text(done))
        return done.stdout.decode(errors="replace")

    def _native(self) -> str:
        said = self._read("apt-config", "shell", "ARCH", "APT::Architecture")
        return said.strip().removeprefix("ARCH=").strip("'\"")

    def _installed(self, native: str) -> dict[str, Installed]:
        admin = f"--admindir={self.root.database}"
        # dpkg-query calls an empty database a failure to find any package.
        done = self._start("dpkg-query", admin, "-W", "-f", QUERY_FORMAT, timeout=QUERY_SECONDS)
        if done.code != 0 and b"no packages found" not in done.stderr.lower():
            raise classify(_text(done))
        return parse_installed(done.stdout.decode(errors="replace"), native)

    def _archives(
        self, versions: Sequence[tuple[str, str]], native: str
    ) -> Mapping[tuple[str, str], Archive]:
        if not versions:
            return {}
        named = [f"{package}={version}" for package, version in sorted(versions)]
        return parse_archives(self._read("apt-cache", "show", "--", *named), native)

    def _simulate(self, *request: str) -> Simulation:
        return parse_simulation(self._read("apt-get", "-q", "-s", *_DECIDE, *request))

    def _wanted(
        self, names: Sequence[str], installed: Mapping[str, Installed], native: str
    ) -> tuple[str, ...]:
        """The names as apt has them, sorted; apt would read `x-` or `x*` as something else."""
        wanted: set[str] = set()
        for asked in names:
            if not _NAME.fullmatch(asked):
                raise InvalidError(f"{asked[:80]!r} is not the name of a Debian package")
            name, _, arch = asked.partition(":")
            wanted.add(qualify(name, arch, native))
        known = {name for name in wanted if name in installed and installed[name].present}
        if wanted - known:
            raise PackageNotInstalledError(sorted(wanted - known))
        held = sorted(name for name in wanted if installed[name].want == "hold")
        if held:
            raise PackageHeldError(held, f"apt-mark unhold {' '.join(held)}")
        return tuple(sorted(wanted))

    def _pin(self, plan: PatchPlan, native: str) -> tuple[str, ...]:
        """Arguments that name every step with its version, and allow nothing beyond."""
        targets = []
        for step in plan.steps:
            package = qualify(step.name, step.arch, native)
            gone = step.change is Change.REMOVE
            targets.append(f"{package}-" if gone else f"{package}={step.new}")
        down = any(step.change is Change.DOWNGRADE for step in plan.steps)
        return (
            *_DECIDE,
            *_QUIET_DPKG,
            "--no-install-recommends",
            *(("--allow-downgrades",) if down else ()),
            *(() if plan.removed() else ("--no-remove",)),
            "install",
            "--",
            *targets,
        )

    def _check_exact(
        self,
        plan: PatchPlan,
        request: Sequence[str],
        installed: Mapping[str, Installed],
        native: str,
    ) -> None:
        """Raise `PlanChangedError` unless the pinned request does the plan's steps exactly."""
        try:
            simulation = parse_simulation(self._read("apt-get", "-q", "-s", *request))
        except (DependenciesBrokenError, RemovalRefusedError) as error:
            raise PlanChangedError([str(error)]) from error
        archives = self._archives(
            [(step.package, step.new) for step in simulation.steps if step.new], native
        )
        now = build_plan(simulation, installed, archives, plan.requested, removals=plan.removals)
        differences = find_differences(plan, now)
        if differences:
            raise PlanChangedError(differences)

    def _restore_marks(
        self,
        plan: PatchPlan,
        automatic: set[str],
        after: Mapping[str, Installed],
        native: str,
    ) -> str:
        """Undo what naming every package did: apt takes it for a wish to keep each of them.

        Returns what went wrong with that, empty for nothing.
        """
        marks = []
        for step in plan.steps:
            package = qualify(step.name, step.arch, native)
            dependency = step.change is Change.INSTALL
            known = after.get(package)
            if known and known.present and (dependency or package in automatic):
                marks.append(package)
        if not marks:
            return ""
        try:
            self._read("apt-mark", "-q", "auto", "--", *marks)
        except SteadError as error:
            return f"not marked as automatically installed: {' '.join(marks)}: {error}"
        return ""

    def _refreshed_at(self) -> datetime | None:
        if not any(self.root.lists.glob("*Release")):
            return None
        times = [path.stat().st_mtime for path in self.root.refresh_stamps if path.exists()]
        return datetime.fromtimestamp(max(times), UTC)


def _text(done: Finished) -> str:
    return (done.stdout + done.stderr).decode(errors="replace")
