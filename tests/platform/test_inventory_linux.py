"""The inventory of the machine that runs the tests, held against other ways of knowing."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from agent.inventory.collect import Collection, collect
from agent.inventory.delta import changed
from agent.inventory.live import Usage, live, running_processes
from agent.inventory.sections import SECTIONS
from agent.inventory.sources import sources_at

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="not run: the sections are those of Linux"
)


@pytest.fixture(scope="module")
def here() -> Collection:
    return collect(sources=sources_at())


def facts(collection: Collection, name: str) -> Mapping[str, Any]:
    body = msgspec.json.decode(collection.results[name].body)
    assert body["status"] == "ok", body["reason"]
    found: Mapping[str, Any] = body["facts"]
    return found


def test_every_section_is_there_and_available_or_says_why(here: Collection) -> None:
    assert set(here.results) == {section.name for section in SECTIONS}
    for name, result in here.results.items():
        body = msgspec.json.decode(result.body)
        assert list(body) == ["section", "schema", "status", "reason", "facts"]
        assert body["section"] == name
        assert (body["status"] == "ok") == (body["facts"] is not None) == (body["reason"] is None)


def test_a_quiet_machine_gives_the_same_bytes_again(here: Collection) -> None:
    for _ in range(5):  # other tests may open a port or mount something meanwhile
        again = collect(sources=sources_at())
        if again.root == here.root:
            break
        differing = changed(here.manifest, again.manifest).to_send
        here = again
    else:
        pytest.fail(f"sections that never came out the same: {differing}")
    for name, result in here.results.items():
        assert result.body == again.results[name].body


def test_the_full_inventory_takes_less_than_a_second_of_processor_time() -> None:
    children = os.times()
    began = time.process_time()
    collect(sources=sources_at())
    after = os.times()
    programs = after.children_user + after.children_system
    programs -= children.children_user + children.children_system
    assert time.process_time() - began + programs < 1.0


def test_the_system_is_the_one_that_python_knows(here: Collection) -> None:
    found = facts(here, "system")
    assert found["kernel"] == platform.release()
    assert found["hostname"] == platform.node()
    assert found["arch"] == platform.machine()
    assert found["os"]["id"] == platform.freedesktop_os_release()["ID"]
    booted_at = msgspec.convert(psutil.boot_time(), float)
    assert found["booted_at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(booted_at))


def test_processors_and_memory_agree_with_psutil(here: Collection) -> None:
    assert facts(here, "cpu")["threads"] == psutil.cpu_count()
    assert facts(here, "memory")["total_bytes"] == psutil.virtual_memory().total
    assert facts(here, "memory")["swap_total_bytes"] == psutil.swap_memory().total


def test_the_root_file_system_has_the_size_that_the_kernel_says(here: Collection) -> None:
    mounts = {mount["path"]: mount for mount in facts(here, "filesystems")["mounts"]}
    full = os.statvfs("/")
    assert mounts["/"]["size_bytes"] == full.f_blocks * full.f_frsize


def test_disks_are_the_same_whoever_is_asked(here: Collection) -> None:
    from agent.inventory.sections.disks import devices_in_sysfs

    if facts(here, "disks")["source"] != "lsblk":
        pytest.skip("not run: there is no lsblk here")
    told = {disk["name"]: disk["size_bytes"] for disk in facts(here, "disks")["devices"]}
    kernel = {disk.name: disk.size_bytes for disk in devices_in_sysfs(sources_at())}
    assert kernel.items() <= told.items()


def test_interfaces_have_the_addresses_that_psutil_finds(here: Collection) -> None:
    told = {
        address.partition("/")[0]
        for interface in facts(here, "network")["interfaces"]
        for address in interface["addresses"]
    }
    families = (socket.AF_INET, socket.AF_INET6)
    known = {
        entry.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for entry in addresses
        if entry.family in families
    }
    assert told <= known
    assert "127.0.0.1" in told


@pytest.mark.skipif(
    not Path("/var/lib/dpkg/status").exists(), reason="not run: dpkg does not manage this machine"
)
def test_packages_are_those_that_dpkg_lists() -> None:
    form = "${Package}\t${Architecture}\t${Version}\t${source:Package}\t${source:Version}\t"
    listed = ["dpkg-query", "-W", f"-f={form}${{db:Status-Status}}\n"]
    printed = subprocess.run(listed, capture_output=True, check=True, text=True).stdout
    known = sorted(
        line.split("\t") for line in printed.splitlines() if line.endswith("\tinstalled")
    )
    found = facts(collect(["packages"], sources=sources_at()), "packages")["packages"]
    keys = ("name", "arch", "version", "source", "source_version", "state")
    told = sorted(
        [row[key] for key in keys]
        for row in found
        if row["manager"] == "dpkg" and row["state"] == "installed"
    )
    assert told == known


def test_a_port_that_begins_to_listen_changes_the_ports_and_nothing_else() -> None:
    names = ["cpu", "memory", "ports", "system"]
    before = collect(names, sources=sources_at())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        during = collect(names, sources=sources_at())
        assert changed(before.manifest, during.manifest).to_send == ("ports",)
        (row,) = (row for row in facts(during, "ports")["ports"] if row["port"] == port)
    own = Path("/proc/self/comm").read_text().strip()
    assert (row["protocol"], row["address"], row["programs"]) == ("tcp", "127.0.0.1", [own])
    later = facts(collect(["ports"], sources=sources_at()), "ports")["ports"]
    assert port not in {row["port"] for row in later}


def test_live_figures_see_a_busy_process() -> None:
    """Where others are busier still, it is not among the few that a snapshot shows."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    known = psutil.Process(busy.pid)

    def used() -> float:
        return known.cpu_times().user + known.cpu_times().system

    def until_used(_seconds: float) -> None:
        first = used()
        while used() < first + 0.1:
            time.sleep(0.01)

    def own() -> list[Usage]:
        return [one for one in running_processes() if one.pid == busy.pid]

    try:
        seen = live(sources_at(), wait=until_used, processes=own)
    finally:
        busy.kill()
        busy.wait()
    (row,) = seen.by_cpu
    assert row.pid == busy.pid
    assert row.cpu_percent > 0
    assert seen.cpu_percent is not None
    assert seen.cpu_percent > 0
    assert seen.memory is not None
    assert seen.memory.total_bytes == psutil.virtual_memory().total
    assert any(disk.path == "/" for disk in seen.disks)
