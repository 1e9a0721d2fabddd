"""The parsers on what apt 2.6 and dpkg 1.21 printed on a Debian 12 and in a mixed root."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.patching.managers.apt_parse import (
    DOWNGRADED,
    KEPT_BACK,
    Release,
    parse_archives,
    parse_audit,
    parse_installed,
    parse_kept_conffiles,
    parse_policies,
    parse_releases,
    parse_simulation,
)

DATA = Path(__file__).parents[2] / "data/apt"


def recorded(name: str) -> str:
    return (DATA / name).read_text()


def test_installed_packages_are_keyed_as_apt_names_them() -> None:
    packages = parse_installed(recorded("mixed.dpkg-query"), "amd64")
    assert {"libx", "libx:i386", "down", "keep"} <= packages.keys()
    assert packages["libx:i386"].arch == "i386"
    assert packages["keep"].want == "hold"
    assert packages["leans"].depends == {"gone"}
    assert packages["down"].size_bytes == 4096


def test_a_real_package_has_its_source_size_and_dependencies() -> None:
    perl = parse_installed(recorded("debian12.dpkg-query"), "amd64")["perl-base"]
    assert perl.version == "5.36.0-7+deb12u2"
    assert (perl.source, perl.state, perl.present) == ("perl", "installed", True)
    assert "libc6" in perl.depends
    assert perl.size_bytes > 1_000_000


def test_releases_tell_security_archives_from_others() -> None:
    releases = parse_releases(recorded("debian12.policy-all"))
    base = "500 http://mirror.example/debian"
    assert base[4:] + "-security bookworm-security/main amd64 Packages" in releases
    assert {release.suite: release.security for release in releases.values()} == {
        "now": False,
        "oldstable": False,
        "oldstable-updates": False,
        "oldstable-security": True,
    }


@pytest.mark.parametrize(
    ("release", "security"),
    [
        (Release("Ubuntu", "noble-security", "Ubuntu", "noble"), True),
        (Release("UbuntuESM", "jammy-infra-security", "UbuntuESM", "jammy"), True),
        (Release("Ubuntu", "noble-updates", "Ubuntu", "noble"), False),
        (Release("Debian", "stable", "Debian-Security", "trixie-security"), True),
        (Release("Debian", "oldstable/updates", "Debian-Security", "buster"), True),
        (Release("Debian", "stable", "Debian", "trixie"), False),
        (Release(), False),
    ],
)
def test_security_is_told_by_label_or_suite(release: Release, security: bool) -> None:
    assert release.security is security


def test_a_policy_lists_the_versions_between_the_candidate_and_the_installed_one() -> None:
    openssl = parse_policies(recorded("debian12.policy"))["openssl"]
    assert openssl.installed == "3.0.19-1~deb12u2"
    assert openssl.candidate == "3.0.22-1~deb12u2"
    assert [offered.version for offered in openssl.newer()] == [
        "3.0.22-1~deb12u2",
        "3.0.20-1~deb12u2",
    ]
    assert openssl.newer()[0].sources == (
        "http://mirror.example/debian-security bookworm-security/main amd64 Packages",
    )


def test_a_policy_without_anything_newer_has_no_newer_versions() -> None:
    policies = parse_policies(recorded("mixed.policy"))
    assert set(policies) == {
        "libx", "libx:i386", "down", "keep", "stay", "gone", "leans", "wide",
    }  # fmt: skip
    assert policies["gone"].newer() == ()
    assert policies["down"].candidate == "1.5"
    assert policies["down"].newer() == ()


def test_archives_know_size_source_digest_and_relations() -> None:
    archives = parse_archives(recorded("mixed.show"), "amd64")
    assert archives["libx", "1.1"].source == "xsrc"
    assert archives["libx:i386", "1.1"].sha256 != archives["libx", "1.1"].sha256
    assert archives["stay", "2.0"].conflicts == {"gone"}
    assert archives["wide", "2.0"].depends == {"fresh", "other"}
    real = parse_archives(recorded("debian12.show"), "amd64")
    assert all(len(archive.sha256) == 64 and archive.size_bytes for archive in real.values())


def test_a_simulation_has_every_step_and_the_lists_before_it() -> None:
    simulation = parse_simulation(recorded("mixed.simulate-upgrade"))
    steps = {step.package: (step.old, step.new, step.arch) for step in simulation.steps}
    assert steps == {
        "down": ("2.0", "1.5", "all"),
        "fresh": ("", "1.0", "all"),
        "libx": ("1.0", "1.1", "amd64"),
        "libx:i386": ("1.0", "1.1", "i386"),
        "wide": ("1.0", "2.0", "all"),
    }
    assert simulation.lists[KEPT_BACK] == {"keep", "stay"}
    assert simulation.lists[DOWNGRADED] == {"down"}


def test_a_real_simulation_gives_as_many_steps_as_apt_counts() -> None:
    text = recorded("debian12.simulate-upgrade")
    simulation = parse_simulation(text)
    assert f"{len(simulation.steps)} upgraded, 0 newly installed" in text
    both = next(step for step in simulation.steps if step.package == "libgcrypt20")
    assert both.origin == "Debian:12.15/oldstable, Debian-Security:12/oldstable-security"
    assert all(step.old and step.new and step.arch for step in simulation.steps)


def test_a_removal_is_a_step_without_a_new_version() -> None:
    simulation = parse_simulation("Remv beta [1.0]\nPurg alpha:i386 [1.0] [beta ]\n")
    assert [(s.package, s.old, s.new) for s in simulation.steps] == [
        ("beta", "1.0", ""),
        ("alpha:i386", "1.0", ""),
    ]


def test_an_origin_may_be_missing() -> None:
    (step,) = parse_simulation("Inst alpha (1.0 [all])\n").steps
    assert (step.new, step.origin, step.arch) == ("1.0", "", "all")


def test_an_audit_names_what_is_in_the_middle_of_something() -> None:
    assert parse_audit(recorded("failed.audit")) == (
        "beta is unpacked",
        "alpha is half-configured",
    )


def test_an_audit_ignores_flaws_that_interrupt_nothing() -> None:
    flaw = (
        "The following packages are missing the md5sums control file in the\n"
        "database, they need to be reinstalled:\n alpha  made for a test\n\n"
    )
    assert parse_audit(flaw) == ()
    assert parse_audit("") == ()


def test_a_kept_configuration_file_is_found_in_the_log() -> None:
    assert parse_kept_conffiles(recorded("failed.upgrade")) == ("/etc/alpha.conf",)
