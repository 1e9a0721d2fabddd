"""What every package manager does, the fake and the real ones alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from agent.patching.apply import apply_plan
from agent.patching.errors import (
    PackageHeldError,
    PackageNotInstalledError,
    PackagesInterruptedError,
    PlanChangedError,
    RemovalRefusedError,
)
from agent.patching.manager import PackageManager
from agent.patching.plan import Change, PatchPlan, decode_plan, encode_plan
from agent.patching.section import updates_section
from agent.patching.update import Scan
from tests.unit.patching.memory_manager import MemoryManager, Offer
from tests.unit.patching.private_apt import (
    PrivateMachine,
    Repository,
    make_repository,
    private_machine,
)


class World(Protocol):
    """A machine and its repository, as a test moves them."""

    @property
    def manager(self) -> PackageManager: ...

    def publish(
        self,
        name: str,
        version: str,
        *,
        security: bool = False,
        depends: str = "",
        conflicts: str = "",
        fails: bool = False,
        content: str = "",
    ) -> None:
        """Put a version on offer; the machine knows of it after `refresh`."""

    def install(self, *names: str) -> None: ...

    def hold(self, name: str) -> None: ...

    def ask_restart(self, name: str) -> None: ...

    def version(self, name: str) -> str | None:
        """The installed version by other means than the manager's word."""


@dataclass
class MemoryWorld:
    manager: MemoryManager = field(default_factory=MemoryManager)

    def publish(
        self,
        name: str,
        version: str,
        *,
        security: bool = False,
        depends: str = "",
        conflicts: str = "",
        fails: bool = False,
        content: str = "",
    ) -> None:
        related = tuple(depends.split()), tuple(conflicts.split())
        self.manager.published[name] = Offer(version, security, *related, fails, content)

    def install(self, *names: str) -> None:
        self.manager.refresh()
        self.manager.installed |= {name: self.manager.offers[name].version for name in names}

    def hold(self, name: str) -> None:
        self.manager.held.add(name)

    def ask_restart(self, name: str) -> None:
        self.manager.asks_restart.add(name)

    def version(self, name: str) -> str | None:
        return self.manager.installed.get(name)


@dataclass
class AptWorld:
    machine: PrivateMachine
    security: Repository

    @property
    def manager(self) -> PackageManager:
        return self.machine.apt

    def publish(
        self,
        name: str,
        version: str,
        *,
        security: bool = False,
        depends: str = "",
        conflicts: str = "",
        fails: bool = False,
        content: str = "",
    ) -> None:
        fields = [f"Depends: {depends}"] if depends else []
        fields += [f"Conflicts: {conflicts}"] if conflicts else []
        repository = self.security if security else self.machine.main
        repository.put(
            name,
            version,
            *fields,
            files={f"usr/share/doc/{name}": content},
            scripts={"postinst": "exit 3"} if fails else None,
        )
        self.machine.main.publish()
        self.security.publish("stable-security", "Test-Security")

    def install(self, *names: str) -> None:
        self.machine.install(*names)

    def hold(self, name: str) -> None:
        self.machine.call("apt-mark", "hold", name)

    def ask_restart(self, name: str) -> None:
        (self.machine.path / "run/reboot-required").touch()
        (self.machine.path / "run/reboot-required.pkgs").write_text(f"{name}\n")

    def version(self, name: str) -> str | None:
        try:
            return self.machine.version(name)
        except FileNotFoundError:
            return None


@pytest.fixture(params=["memory", "apt"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    with private_machine(tmp_path) as machine:
        security = make_repository(tmp_path / "security", machine.main.gnupg)
        machine.trust(machine.main, security)
        yield AptWorld(machine, security)


def changes(plan: PatchPlan) -> dict[str, str]:
    return {step.name: f"{step.change} {step.old}>{step.new}" for step in plan.steps}


def test_a_machine_with_nothing_on_offer_has_an_empty_scan_and_an_empty_plan(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    assert world.manager.scan().updates == ()
    plan = world.manager.plan(None)
    assert plan.steps == ()
    assert apply_plan(world.manager, plan).succeeded


def test_an_update_is_offered_planned_applied_and_verified(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.publish("alpha", "2.0")
    world.manager.refresh()

    scan = world.manager.scan()
    (update,) = scan.updates
    assert (update.name, update.installed, update.candidate) == ("alpha", "1.0", "2.0")
    assert update.origin == "Test"
    assert update.download_bytes > 0
    assert scan.refreshed_at is not None

    plan = world.manager.plan(None)
    assert changes(plan) == {"alpha": "upgrade 1.0>2.0"}
    assert plan.download_bytes == update.download_bytes

    result = apply_plan(world.manager, plan)
    assert result.succeeded
    assert [step.name for step in result.applied] == ["alpha"]
    assert result.plan_digest == plan.digest()
    assert world.version("alpha") == "2.0"
    assert world.manager.scan().updates == ()


def test_planning_and_scanning_change_nothing(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.publish("alpha", "2.0")
    world.manager.refresh()
    plans = [world.manager.plan(None) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].digest() == plans[1].digest()
    facts = [msgspec.json.encode(updates_section(world.manager.scan())) for _ in range(2)]
    assert facts[0] == facts[1]
    assert world.version("alpha") == "1.0"


def test_scans_and_plans_survive_encoding(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.publish("beta", "1.0")
    world.publish("alpha", "2.0", depends="beta")
    world.manager.refresh()
    plan, scan = world.manager.plan(["alpha"]), world.manager.scan()
    assert decode_plan(encode_plan(plan)) == plan
    assert decode_plan(encode_plan(plan)).digest() == plan.digest()
    assert msgspec.json.decode(msgspec.json.encode(scan), type=Scan) == scan


def test_only_what_a_security_archive_offers_is_a_security_update(world: World) -> None:
    world.publish("alpha", "1.0")
    world.publish("beta", "1.0")
    world.install("alpha", "beta")
    world.publish("alpha", "1.1", security=True)
    world.publish("beta", "1.1")
    world.manager.refresh()
    scan = world.manager.scan()
    assert {update.name: update.security for update in scan.updates} == {
        "alpha": True,
        "beta": False,
    }
    assert updates_section(scan).security_count == 1


def test_a_plan_by_name_takes_that_package_and_what_it_needs_with_reasons(world: World) -> None:
    world.publish("alpha", "1.0")
    world.publish("beta", "1.0")
    world.install("alpha", "beta")
    world.publish("gamma", "3.0")
    world.publish("alpha", "2.0", depends="gamma")
    world.publish("beta", "2.0")
    world.manager.refresh()
    plan = world.manager.plan(["alpha"])
    assert changes(plan) == {"alpha": "upgrade 1.0>2.0", "gamma": "install >3.0"}
    assert {step.name: step.reason for step in plan.steps} == {
        "alpha": "requested",
        "gamma": "dependency of alpha",
    }
    assert apply_plan(world.manager, plan).succeeded
    assert world.version("gamma") == "3.0"
    assert world.version("beta") == "1.0"


def test_a_held_package_is_listed_with_its_reason_and_left_alone(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.hold("alpha")
    world.publish("alpha", "2.0")
    world.manager.refresh()
    scan = world.manager.scan()
    assert scan.updates == ()
    (held,) = scan.held
    assert (held.name, held.installed, held.candidate) == ("alpha", "1.0", "2.0")
    assert "hold" in held.reason
    assert world.manager.plan(None).steps == ()
    with pytest.raises(PackageHeldError):
        world.manager.plan(["alpha"])


def test_a_package_that_is_not_installed_cannot_be_requested(world: World) -> None:
    world.publish("alpha", "1.0")
    world.publish("beta", "1.0")
    world.install("alpha")
    with pytest.raises(PackageNotInstalledError, match="beta"):
        world.manager.plan(["beta"])


def test_removing_packages_is_refused_unless_the_plan_allows_it(world: World) -> None:
    world.publish("alpha", "1.0")
    world.publish("beta", "1.0")
    world.install("alpha", "beta")
    world.publish("alpha", "2.0", conflicts="beta")
    world.manager.refresh()
    assert world.manager.plan(None).steps == ()
    with pytest.raises(RemovalRefusedError) as refused:
        world.manager.plan(["alpha"])
    assert refused.value.names == ("beta",)
    plan = world.manager.plan(["alpha"], removals=True)
    assert changes(plan) == {"alpha": "upgrade 1.0>2.0", "beta": "remove 1.0>"}
    assert plan.removed() == ("beta",)
    assert apply_plan(world.manager, plan).succeeded
    assert world.version("beta") is None
    assert world.version("alpha") == "2.0"


@pytest.mark.parametrize("again", ["2.1", "2.0"], ids=["newer version", "same version, new bytes"])
def test_a_transaction_that_changed_since_it_was_ordered_is_refused(
    world: World, again: str
) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.publish("alpha", "2.0")
    world.manager.refresh()
    ordered = world.manager.plan(None)
    world.publish("alpha", again, content="not what was ordered")
    world.manager.refresh()
    with pytest.raises(PlanChangedError) as refused:
        apply_plan(world.manager, ordered)
    assert any("alpha" in difference for difference in refused.value.differences)
    assert world.version("alpha") == "1.0"


def test_applying_never_installs_other_bytes_than_the_plan_names(world: World) -> None:
    world.publish("alpha", "1.0")
    world.install("alpha")
    world.publish("alpha", "2.0")
    world.manager.refresh()
    plan = world.manager.plan(None)
    world.publish("alpha", "2.0", content="not what was planned")
    world.manager.refresh()
    with pytest.raises(PlanChangedError):
        world.manager.apply(plan)
    assert world.version("alpha") == "1.0"


def test_a_failing_package_is_reported_with_its_state_and_blocks_what_follows(
    world: World,
) -> None:
    world.publish("alpha", "1.0")
    world.publish("beta", "1.0")
    world.install("alpha", "beta")
    world.publish("alpha", "2.0", fails=True)
    world.publish("beta", "2.0")
    world.manager.refresh()
    result = apply_plan(world.manager, world.manager.plan(None))
    assert not result.succeeded
    (failed,) = result.failed
    assert failed.step.name == "alpha"
    assert failed.step.change is Change.UPGRADE
    assert (failed.state, failed.installed) == ("half-configured", "2.0")
    assert "status 3" in failed.reason
    assert [step.name for step in result.applied] == ["beta"]
    assert result.problem
    with pytest.raises(PackagesInterruptedError, match="alpha"):
        world.manager.check_health()
    with pytest.raises(PackagesInterruptedError):
        world.manager.apply(world.manager.plan(None))


def test_a_restart_is_needed_when_a_package_asks_for_it(world: World) -> None:
    assert not world.manager.reboot_needed().needed
    world.ask_restart("linux-image")
    need = world.manager.reboot_needed()
    assert need.needed
    assert need.reasons == ("linux-image asks for it",)
