from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.cli.machines.picture import Happening, Picture, render_bar, render_picture

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
GIB = 1 << 30


def machine(**changes: Any) -> dict[str, Any]:
    return {
        "name": "web-01",
        "tenant": "acme",
        "state": "active",
        "linked": True,
        "last_seen_at": NOW - timedelta(seconds=3),
        "agent_version": "0.1.0",
        "system": "Debian GNU/Linux 12",
        "updates": 12,
        "security_updates": 3,
        "last_point_at": NOW - timedelta(hours=3),
        "last_drill_at": None,
        "drill_state": "",
        "frozen": [],
        "frozen_at": None,
        "tags": ["prod", "web"],
        **changes,
    }


def space(total: int, used: int) -> dict[str, int]:
    return {"total_bytes": total, "used_bytes": used, "free_bytes": total - used}


BUSY = Picture(
    machine=machine(),
    facts={
        "system": {"os": {"name": "Debian 12"}, "kernel": "6.1", "arch": "x86_64"},
        "cpu": {"model": "Xeon" * 40, "threads": 8},
        "network": {
            "interfaces": [
                {"name": "lo", "up": True, "addresses": ["127.0.0.1/8"]},
                {"name": "eth0", "up": True, "addresses": ["fe80::1/64", "10.0.0.5/24"]},
            ]
        },
        "ports": {
            "ports": [
                {"port": port, "protocol": "tcp", "programs": [f"program-{port}"]}
                for port in range(1, 200)
            ]
        },
    },
    collected_at=NOW,
    live={
        "uptime_s": 93784,
        "cpu_percent": 12.5,
        "load": {"one": 0.5, "five": 1.0, "fifteen": 2.0},
        "memory": space(8 * GIB, 4 * GIB),
        "swap": space(0, 0),
        "disks": [
            {"path": f"/data{number}", "space": space(100, number)} for number in range(90, 100)
        ],
        "by_cpu": [{"name": "postgres", "cpu_percent": 50.0}],
        "by_memory": [{"name": "\x1b[31mevil", "memory_bytes": GIB}],
        "failed_services": ["nginx.service"],
    },
    live_at=NOW - timedelta(minutes=2),
    changes=[Happening(NOW, "packages, " * 30)] * 9,
    jobs=[Happening(NOW, "run uname -a", "failed")] * 9,
)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_picture_fits_one_screen(width: int) -> None:
    lines = render_picture(BUSY, now=NOW, width=width)
    assert len(lines) <= 23
    assert max(line.cell_len for line in lines) <= width


def test_a_picture_says_who_and_how_it_is() -> None:
    said = "\n".join(line.plain for line in render_picture(BUSY, now=NOW, width=120))
    for words in (
        "web-01  acme",
        "linked, seen 3 s ago",
        "eth0 10.0.0.5",
        "up 1 d 2 h",
        "50.0 %",
        "4.0 GiB of 8.0 GiB",
        "1 failed: nginx.service",
        "12 on offer, 3 for security",
        "3 h ago",
        "run uname -a: failed",
    ):
        assert words in said, words
    assert "swap" not in said
    assert "\x1b" not in said


def test_a_machine_without_a_good_drill_is_red_and_one_with_is_not() -> None:
    for facts, style, said in (
        ({}, "red", "untried"),
        ({"last_drill_at": NOW - timedelta(days=2), "drill_state": "good"}, "green", "good, 2 d"),
        ({"last_drill_at": NOW - timedelta(days=2), "drill_state": "wrong"}, "red", "wrong; the"),
        ({"last_drill_at": NOW - timedelta(days=99), "drill_state": "good"}, "red", "late"),
    ):
        picture = Picture(machine(**facts), {}, None, {}, None)
        (line,) = [
            line
            for line in render_picture(picture, now=NOW, width=80)
            if line.plain.startswith("backup")
        ]
        assert said in line.plain
        assert style in {str(span.style) for span in line.spans}


def test_a_machine_of_which_nothing_is_known_has_a_picture_too() -> None:
    bare = machine(
        linked=False, system="", last_seen_at=None, updates=None, last_point_at=None, tags=[]
    )
    picture = Picture(bare, {}, None, {}, None)
    said = "\n".join(line.plain for line in render_picture(picture, now=NOW, width=80))
    assert "not linked, seen never" in said
    assert "stead snapshot take web-01" in said
    assert "not scanned yet" in said


@pytest.mark.parametrize(("percent", "full"), [(-5.0, 0), (0.0, 0), (50.0, 10), (250.0, 20)])
def test_a_bar_stays_within_its_width(percent: float, full: int) -> None:
    bar = render_bar(percent).plain
    assert bar.count("█") == full
    assert len(bar) == 20


def test_a_frozen_machine_says_so_and_why() -> None:
    frozen = machine(frozen=["60 of 61 changed files look encrypted, and did not before"])
    lines = render_picture(Picture(frozen, {}, None, {}, None), now=NOW, width=120)
    (line,) = [line for line in lines if "frozen" in line.plain]
    assert "60 of 61 changed files look encrypted" in line.plain
    assert "red" in {str(span.style) for span in line.spans}
