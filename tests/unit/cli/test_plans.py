from __future__ import annotations

import pytest

from agent.patching.plan import Change, PatchPlan, Step, encode_plan
from controller.cli.plans import (
    parse_proposal,
    remarks_of,
    result_rows,
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
