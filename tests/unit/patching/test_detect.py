"""Which manager owns a machine, and whether it waits for a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.patching.detect import detect_manager
from agent.patching.errors import ManagerMissingError
from agent.patching.managers.reboot import judge_reboot, newer_kernels
from protocol.errors import Code


def test_apt_owns_a_machine_with_its_programs_and_its_packages(tmp_path: Path) -> None:
    database = tmp_path / "status"
    database.write_text("Package: alpha\n")
    assert detect_manager(find=lambda name: f"/bin/{name}", apt_database=database).name == "apt"


@pytest.mark.parametrize(
    ("programs", "content", "named"),
    [
        ((), None, "apt: no dpkg, no apt-get"),
        (("dpkg",), "Package: alpha\n", "apt: no apt-get"),
        (("dpkg", "apt-get"), "", "no packages in"),
    ],
)
def test_a_machine_without_apt_is_refused_with_what_was_looked_for(
    tmp_path: Path, programs: tuple[str, ...], content: str | None, named: str
) -> None:
    database = tmp_path / "status"
    if content is not None:
        database.write_text(content)
    with pytest.raises(ManagerMissingError, match=named) as refused:
        detect_manager(find=lambda name: name if name in programs else None, apt_database=database)
    assert refused.value.code is Code.UNSUPPORTED


def test_a_kernel_counts_only_when_newer_and_of_the_running_flavour() -> None:
    images = [
        "vmlinuz-6.1.0-28-amd64",
        "vmlinuz-6.1.0-30-cloud-amd64",
        "vmlinuz-6.1.0-31-amd64",
        "vmlinuz-6.1.0-100-amd64",
        "vmlinuz-6.1.0-9-amd64",
        "vmlinuz-old",
    ]
    assert newer_kernels("6.1.0-28-amd64", images) == ("6.1.0-31-amd64", "6.1.0-100-amd64")
    assert newer_kernels("", images) == ()


def test_a_restart_is_asked_for_by_packages_or_by_a_kernel() -> None:
    assert not judge_reboot(False, ["left over"], "6.1.0-28-amd64", []).needed
    assert judge_reboot(True, [], "", []).reasons == ("a package asks for it",)
    both = judge_reboot(True, ["libc6", "libc6"], "6.1-1-amd64", ["vmlinuz-6.1-2-amd64"])
    assert both.reasons == (
        "libc6 asks for it",
        "kernel 6.1-2-amd64 is installed and 6.1-1-amd64 is running",
    )
