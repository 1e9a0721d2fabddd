"""What apt complained about, recorded, gets the class and the words that help."""

from __future__ import annotations

import re

import pytest

from agent.patching.errors import (
    DependenciesBrokenError,
    DiskFullError,
    ManagerFailedError,
    PackagesInterruptedError,
    PackagesLockedError,
    RemovalRefusedError,
    RepositoryUnreachableError,
    RepositoryUntrustedError,
)
from agent.patching.managers.apt_errors import classify, step_failure
from tests.unit.patching.test_apt_parse import recorded

LOCKED = (
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 5943 (apt-get)\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another "
    "process using it?\n"
)
DPKG_LOCKED = "dpkg: error: dpkg frontend lock was locked by another process with pid 77\n"
FULL = "E: You don't have enough free space in /var/cache/apt/archives/.\n"
REMOVES = "E: Packages need to be removed but remove is disabled.\n"
BROKEN = (
    "The following packages have unmet dependencies:\n"
    " delta : Conflicts: alpha but 2.0 is to be installed\n"
    "E: Unable to correct problems, you have held broken packages.\n"
)
SCRIPT_SPEAKS = (
    "curl: 404 Not Found\ndpkg: error processing package alpha (--configure):\n"
    " installed alpha package post-installation script subprocess returned error exit status 7\n"
    "E: Sub-process /usr/bin/dpkg returned an error code (1)\n"
)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (LOCKED, PackagesLockedError, "process 5943 (apt-get)"),
        (DPKG_LOCKED, PackagesLockedError, "pid 77"),
        (recorded("failed.interrupted"), PackagesInterruptedError, "`dpkg --configure -a`"),
        (recorded("failed.no-key"), RepositoryUntrustedError, "NO_PUBKEY 92EBC413387665E0"),
        (recorded("failed.unsigned"), RepositoryUntrustedError, "no longer signed"),
        (recorded("failed.vanished"), RepositoryUnreachableError, "no longer has a Release file"),
        (recorded("failed.refused"), RepositoryUnreachableError, "Connection refused"),
        (recorded("failed.upgrade"), ManagerFailedError, "dpkg failed"),
        (SCRIPT_SPEAKS, ManagerFailedError, "dpkg failed"),
        (FULL, DiskFullError, "/var/cache/apt/archives/"),
        (REMOVES, RemovalRefusedError, "would remove some packages, which no order does"),
        (BROKEN, DependenciesBrokenError, "delta : Conflicts: alpha"),
        ("something new\n", ManagerFailedError, "something new"),
        ("", ManagerFailedError, "no message"),
    ],
)
def test_a_failure_is_named(said: str, error: type[Exception], words: str) -> None:
    found = classify(said)
    assert type(found) is error
    assert words in str(found)
    # The words stand in a sentence of ours, which ends by itself.
    assert not re.search(r"[EW]: |\.;|\.\.", str(found))


def test_dpkg_says_of_each_package_why_it_failed() -> None:
    log = recorded("failed.upgrade")
    assert step_failure(log, "alpha").endswith("exit status 7")
    assert step_failure(log, "beta") == "dependency problems - leaving unconfigured"
    assert step_failure(log, "gamma") == ""
