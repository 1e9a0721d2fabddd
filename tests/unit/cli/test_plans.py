from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from agent.patching.plan import Change, PatchPlan, Step, encode_plan
from controller.cli.machines.plans import (
    alike,
    package_cells,
    parse_proposal,
    remarks_of,
    render_extent,
    result_rows,
    scan_fields,
    step_rows,
    update_rows,
)
from protocol.errors import InvalidError

PLAN = PatchPlan(
    manager="apt",
    requested=("openssl",),
    removals=False,
    steps=(
        Step(
            change=Change.UPGRADE,
            name="openssl",
            arch="amd64",
            old="3.0.1",
            new="3.0.2",
            origin="Debian",
            reason="requested",
            download_bytes=100,
            sha256="00" * 32,
        ),
    ),
    download_bytes=100,
    disk_change_bytes=-5,
)


def answer(plan: bytes, digest: str = "") -> bytes:
    return b'{"digest":"' + digest.encode() + b'","plan":' + plan + b"}"


def test_what_is_shown_is_what_an_order_carries() -> None:
    found = parse_proposal(answer(encode_plan(PLAN), digest="lies"))
    assert found.data == encode_plan(PLAN)
    assert found.digest == PLAN.digest()
    assert step_rows("web-01", found)[0]["new"] == "3.0.2"


def test_machines_whose_plans_differ_in_a_byte_are_not_alike() -> None:
    one, same = (parse_proposal(answer(encode_plan(PLAN))) for _ in range(2))
    later = msgspec.structs.replace(PLAN, removals=True)
    other = parse_proposal(answer(encode_plan(later)))
    # What is shown of them is the same; what an order would carry is not.
    assert other.plan == one.plan
    groups = alike({("a", "1"): one, ("b", "2"): other, ("c", "3"): same})
    assert groups == {one: [("a", "1"), ("c", "3")], other: [("b", "2")]}


@pytest.mark.parametrize("result", [b"", b"{}", b"[]", b'{"plan":{"steps":3}}'])
def test_an_answer_without_a_plan_is_refused(result: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_proposal(result)


def test_security_updates_come_first_and_held_ones_say_why() -> None:
    facts = {
        "updates": [
            {"name": "a", "security": False, "installed": "1", "candidate": "2"},
            {"name": "z", "security": True, "installed": "1", "candidate": "2", "origin": "Debian"},
        ],
        "held": [{"name": "h", "security": True, "reason": "on hold"}],
    }
    rows = list(update_rows("web-01", facts))
    assert [row["package"] for row in rows] == ["z", "a", "h"]
    assert rows[2]["held"] == "on hold"


def test_a_result_names_what_failed_and_what_else_to_know() -> None:
    result = {
        "applied": [{"name": "a", "change": "upgrade", "old": "1", "new": "2"}],
        "failed": [{"step": {"name": "b"}, "state": "half-configured", "reason": ""}],
        "reboot": {"needed": True, "reasons": ["linux-image"]},
        "kept_conffiles": ["/etc/x"],
        "still_missing": [],
        "unverified": "",
    }
    rows = result_rows("web-01", result)
    assert [(row["package"], row["state"]) for row in rows] == [("a", "succeeded"), ("b", "failed")]
    assert rows[1]["reason"] == "half-configured"
    assert remarks_of(result) == [
        "a restart is needed: linux-image",
        "changed configuration files were kept: /etc/x",
    ]


def test_what_a_failed_transaction_printed_last_is_repeated() -> None:
    log = "\n".join(["far above"] * 50 + ["no sparks", "dpkg: error"])
    failed = {"step": {"name": "b"}, "state": "half-configured"}
    (said,) = remarks_of({"failed": [failed], "log_tail": log})
    assert said.endswith("\n  no sparks\n  dpkg: error")
    assert len(said.splitlines()) == 26
    assert remarks_of({"failed": [], "log_tail": log}) == []


@pytest.mark.parametrize(
    ("steps", "change", "said"),
    [
        (1, -5, "1 step, 100 B to fetch, 5 B less on disk"),
        (2, 2048, "2 steps, 100 B to fetch, 2.0 KiB more on disk"),
        (0, 0, "0 steps, 100 B to fetch, as much on disk"),
    ],
)
def test_the_extent_of_a_plan_is_one_line(steps: int, change: int, said: str) -> None:
    plan = msgspec.structs.replace(PLAN, steps=PLAN.steps * steps, disk_change_bytes=change)
    assert render_extent(parse_proposal(answer(encode_plan(plan)))).startswith(f"{said}; plan ")


def test_a_package_that_is_there_for_two_architectures_is_told_apart() -> None:
    rows = [
        {"machine": machine, "package": name, "arch": arch}
        for machine, name, arch in [
            ("web-01", "libx", "amd64"),
            ("web-01", "libx", "i386"),
            ("web-01", "bash", "amd64"),
            ("web-02", "libx", "arm64"),
        ]
    ]
    cell = package_cells(rows)["package"]
    assert [cell(row) for row in rows] == ["libx:amd64", "libx:i386", "bash", "libx"]


def test_a_scan_says_of_when_its_lists_are_and_a_failed_one_nothing() -> None:
    found = {"updates": 3, "security": 1, "held": 0, "refreshed_at": "2026-05-01T12:00:00Z"}
    assert scan_fields(found)["refreshed_at"] == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert set(scan_fields({}).values()) == {None}
