from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from agent.host.process import ProgramError
from agent.inventory.sections import packages
from agent.inventory.sections.packages import Package
from protocol.errors import Code, UnavailableError
from tests.unit.inventory.machines import DEBIAN, machine, recorded, tree


def test_dpkg_tells_the_source_of_each_package_and_its_version() -> None:
    found = {item.name: item for item in packages.collect(machine(DEBIAN)).packages}
    assert found["acl"] == Package("dpkg", "acl", "amd64", "2.3.1-3", "acl", "2.3.1-3")
    assert (found["libc6"].source, found["libc6"].source_version) == ("glibc", "2.36-9+deb12u14")
    assert (found["postgresql"].source, found["postgresql"].source_version) == (
        "postgresql-common",
        "248+deb12u1",
    )
    assert found["postgresql"].version == "15+248+deb12u1"


def test_what_is_left_of_a_removed_package_is_none_and_a_stuck_one_says_so() -> None:
    found = {item.name: item for item in packages.collect(machine(DEBIAN)).packages}
    assert "left-behind" not in found
    assert (found["half-there"].state, found["half-there"].version) == (
        "half-configured",
        "2:0.9-3",
    )


def test_the_order_in_the_database_does_not_matter() -> None:
    stanzas = (DEBIAN / "var/lib/dpkg/status").read_text().strip().split("\n\n")
    backwards = "\n\n".join(reversed(stanzas)) + "\n"
    assert packages.parse_dpkg_status(backwards) == packages.parse_dpkg_status("\n\n".join(stanzas))


def test_a_description_cannot_pass_for_a_field() -> None:
    text = "Package: a\nStatus: install ok installed\nVersion: 1\nDescription: x\n Version: 9\n"
    (found,) = packages.parse_dpkg_status(text)
    assert found.version == "1"


def test_rpm_tells_epochs_sources_and_every_version(tmp_path: Path) -> None:
    root = tree(tmp_path, {"/var/lib/rpm/rpmdb.sqlite": b""})
    found = packages.collect(machine(root, {"rpm -qa": recorded("rpm-qa.txt")})).packages
    assert [(item.name, item.version) for item in found if not item.name.endswith("-libs")] == [
        ("bind-demo", "32:9.16.23-1.el9"),
        ("kernel-demo", "6.1.0-1.el9"),
        ("kernel-demo", "6.2.0-1.el9"),
        ("stead-demo", "1.2.3-1.el9"),
    ]
    assert found[1] == Package(
        "rpm", "bind-demo-libs", "noarch", "32:9.16.23-1.el9", "bind-demo", "9.16.23-1.el9"
    )


def test_keys_that_rpm_trusts_are_no_packages() -> None:
    key = "gpg-pubkey\tfd431d51-4ae0493b\t(none)\t(none)\n"
    assert packages.parse_rpm(key + "tool\t1-1\tnoarch\t(none)\n") == [
        Package("rpm", "tool", "noarch", "1-1", "tool", "1-1")
    ]
    with pytest.raises(UnavailableError, match="unknown form"):
        packages.parse_rpm("error: something\n")


def test_no_database_is_not_the_same_as_no_package(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="neither dpkg nor rpm"):
        packages.collect(machine(tmp_path))


def test_an_rpm_database_without_rpm_is_a_gap_beside_dpkg_and_a_failure_alone(
    tmp_path: Path,
) -> None:
    rpm: dict[str, str | bytes] = {"/usr/lib/sysimage/rpm/rpmdb.sqlite": b""}
    with pytest.raises(ProgramError, match="cannot start rpm"):
        packages.collect(machine(tree(tmp_path / "a", rpm)))
    dpkg: dict[str, str | bytes] = {
        "/var/lib/dpkg/status": (DEBIAN / "var/lib/dpkg/status").read_text()
    }
    facts = packages.collect(machine(tree(tmp_path / "b", rpm | dpkg)))
    assert facts.packages
    assert facts.gaps["rpm"].startswith("cannot start rpm")


def test_an_rpm_that_hangs_costs_the_section_even_beside_dpkg(tmp_path: Path) -> None:
    def hanging(*argv: str, **_: Any) -> Any:
        raise ProgramError("rpm did not end", code=Code.TIMED_OUT)

    dpkg: dict[str, str | bytes] = {"/var/lib/dpkg/status": "", "/var/lib/rpm/Packages": b""}
    sources = dataclasses.replace(machine(tree(tmp_path, dpkg)), run=hanging)
    with pytest.raises(ProgramError, match="did not end"):
        packages.collect(sources)
