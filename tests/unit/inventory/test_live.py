from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from agent.inventory.live import Load, Process, Space, Usage, encode_live, live, rates, spaces, top
from agent.inventory.sources import Capacity
from tests.unit.inventory.machines import machine, recorded, tree

FILES = {
    "/proc/stat": "cpu  100 0 0 900 0 0 0 0 0 0\n",
    "/proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 60 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n",
    "/proc/loadavg": "0.50 1.25 2.00 3/123 4567\n",
    "/proc/uptime": "1370.55 2000.00\n",
    "/proc/self/mounts": recorded("mounts-made.txt"),
    "/run/systemd/system/.keep": "",
}
FAILED = {"systemctl list-units --state=failed": '[{"unit":"nginx.service","load":"loaded",'
          '"active":"failed","sub":"failed","description":""}]'}  # fmt: skip


def usage(pid: int, cpu_s: float, memory: int = 0, *, started: float = 1.0) -> Usage:
    return Usage(pid, started, f"p{pid}", "root", cpu_s, memory)


def test_a_snapshot_is_taken_from_two_looks(tmp_path: Path) -> None:
    root = tree(tmp_path, FILES)
    looks = iter([[usage(1, 1.0, 50)], [usage(1, 1.0, 50), usage(2, 0.5, 10)]])

    def wait(seconds: float) -> None:
        (root / "proc/stat").write_text("cpu  125 0 0 975 0 0 0 0 0 0\n")

    sources = dataclasses.replace(
        machine(root, FAILED), capacity=lambda path: Capacity(100, 40, 55)
    )
    seen = live(sources, wait=wait, processes=lambda: next(looks))
    assert (seen.uptime_s, seen.load, seen.cpu_percent) == (1370, Load(0.5, 1.25, 2.0), 25.0)
    assert seen.memory == Space(100 * 1024, 40 * 1024, 60 * 1024)
    assert seen.swap == Space(10 * 1024, 6 * 1024, 4 * 1024)
    assert [disk.path for disk in seen.disks] == ["/", "/media/My Disk\\x", "/srv", "/srv/bind"]
    assert [process.pid for process in seen.by_cpu] == [2]
    assert [process.pid for process in seen.by_memory] == [1, 2]
    assert seen.failed_services == ["nginx"]
    assert set(seen.gaps) == {"/mnt/export", "/mnt/share"}


def test_what_cannot_be_had_is_null_with_a_reason(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ("/proc/stat", "/proc/meminfo", "/proc/self/mounts")}
    seen = live(machine(tree(tmp_path, files)), wait=lambda seconds: None, processes=list)
    assert (seen.uptime_s, seen.load, seen.failed_services, seen.cpu_percent) == (None,) * 4
    assert {"uptime", "load", "failed_services"} <= set(seen.gaps)


def test_a_process_id_that_was_given_again_counts_from_zero() -> None:
    before = [usage(1, 100.0), usage(2, 3.0)]
    after = [usage(1, 0.5, started=9.0), usage(2, 4.0)]
    assert [row.cpu_percent for row in rates(before, after, seconds=2.0)] == [25.0, 50.0]


def test_the_top_leaves_out_who_does_nothing() -> None:
    rows = [
        Process(pid, "p", "root", percent, 0) for pid, percent in ((1, 0.0), (2, 5.0), (3, 7.0))
    ]
    assert [row.pid for row in top(rows, by=lambda row: row.cpu_percent)] == [3, 2]
    assert spaces("MemTotal: 1 kB\n") == (None, None)


def test_the_name_of_a_process_cannot_steer_a_terminal(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ("/proc/stat", "/proc/meminfo", "/proc/self/mounts")}
    nasty = [Usage(1, 1.0, "\x1b]0;x\x07\udcff", "root", 0.0, 9)]
    seen = live(machine(tree(tmp_path, files)), wait=lambda _: None, processes=lambda: nasty)
    body = msgspec.json.decode(encode_live(seen))
    assert body["by_memory"][0]["name"] == "\\x1b]0;x\\x07\\xff"
