"""Scans and plans made from recorded output."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from agent.patching.managers.apt_parse import (
    Simulation,
    parse_archives,
    parse_installed,
    parse_policies,
    parse_releases,
    parse_simulation,
)
from agent.patching.managers.apt_plan import DOES_NOT_FIT, ON_HOLD, build_plan, build_scan
from agent.patching.plan import Change, PatchPlan
from agent.patching.update import Scan
from tests.unit.patching.test_apt_parse import recorded

AT = datetime(2026, 5, 1, tzinfo=UTC)


def scan_of(machine: str) -> Scan:
    return build_scan(
        parse_installed(recorded(f"{machine}.dpkg-query"), "amd64"),
        parse_policies(recorded(f"{machine}.policy")),
        parse_releases(recorded(f"{machine}.policy-all")),
        parse_archives(recorded(f"{machine}.show"), "amd64"),
        parse_simulation(recorded(f"{machine}.simulate-upgrade")),
        AT,
    )


def plan_of(simulated: str, names: list[str] | None = None) -> PatchPlan:
    return build_plan(
        parse_simulation(simulated),
        parse_installed(recorded("mixed.dpkg-query"), "amd64"),
        parse_archives(recorded("mixed.show"), "amd64"),
        names,
        removals=False,
    )


def test_a_real_machine_offers_security_and_other_updates() -> None:
    scan = scan_of("debian12")
    updates = {update.name: update for update in scan.updates}
    assert updates["openssl"].security
    assert updates["openssl"].label == "Debian-Security"
    assert not updates["bash"].security
    # Both archives have this version: the one that says more is named.
    assert updates["libgcrypt20"].suite == "oldstable-security"
    assert "adduser" not in updates
    assert scan.held == ()
    assert scan.refreshed_at == AT


def test_held_packages_carry_the_reason() -> None:
    scan = scan_of("mixed")
    assert {held.name: held.reason for held in scan.held} == {
        "keep": ON_HOLD,
        "stay": DOES_NOT_FIT,
    }
    assert [(u.name, u.arch) for u in scan.updates] == [
        ("libx", "amd64"),
        ("libx", "i386"),
        ("wide", "all"),
    ]


def test_a_plan_has_each_step_with_its_reason_in_the_order_of_names() -> None:
    plan = plan_of(recorded("mixed.simulate-upgrade"))
    assert [(s.name, s.arch, s.change, s.reason) for s in plan.steps] == [
        ("down", "all", Change.DOWNGRADE, "pinned below the installed version"),
        ("fresh", "all", Change.INSTALL, "dependency of wide"),
        ("libx", "amd64", Change.UPGRADE, "on offer"),
        ("libx", "i386", Change.UPGRADE, "on offer"),
        ("wide", "all", Change.UPGRADE, "on offer"),
    ]
    assert plan.download_bytes == sum(step.download_bytes for step in plan.steps) > 0
    assert plan.disk_change_bytes == 4096


def test_what_comes_along_says_why() -> None:
    simulated = (
        "Remv leans [1.0]\nRemv gone [1.0]\nInst stay [1.0] (2.0 Test:stable [all])\n"
        "Inst libx [1.0] (1.1 Test:stable [amd64])\n"
        "Inst libx:i386 [1.0] (1.1 Test:stable [i386])\n"
    )
    plan = plan_of(simulated, ["libx", "stay"])
    assert {f"{s.name}:{s.arch}": s.reason for s in plan.steps} == {
        "gone:all": "conflicts with stay",
        "leans:all": "depends on gone, which is removed",
        "libx:amd64": "requested",
        "libx:i386": "same source as libx",
        "stay:all": "requested",
    }
    assert plan.removed() == ("gone", "leans")


def test_an_empty_simulation_is_an_empty_plan() -> None:
    assert build_plan(Simulation(()), {}, {}, None, removals=False).steps == ()


def test_a_package_that_was_left_half_way_is_listed_although_nothing_is_on_offer() -> None:
    known = parse_installed(recorded("mixed.dpkg-query"), "amd64")
    broken = dataclasses.replace(known["wide"], state="half-configured")
    scan = build_scan({"wide": broken}, {}, {}, {}, Simulation(()), AT)
    assert scan.updates == ()
    (held,) = scan.held
    assert (held.name, held.candidate) == ("wide", broken.version)
    assert "half-configured" in held.reason
    assert "dpkg --configure -a" in held.reason
