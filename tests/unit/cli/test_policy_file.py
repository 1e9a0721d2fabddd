"""A policy as people write it: what is read, what is refused, and what it changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.cli.policy_file import difference, parse_policy, policy_of
from protocol.errors import InvalidError
from protocol.ids import TenantId
from protocol.policy import NEVER, Policy, Rule, no_policy

TENANT = TenantId("tn_" + "0" * 26)
NOW = datetime(2026, 5, 1, tzinfo=UTC)
TEXT = b"""
tenant = "acme"
[class.dangerous]
second_above = "never"
[action.run_script]
roles = ["admin"]
second_above = 0
[action.run_program]
longest_days = 30
[action.control_power]
forbid = true
"""


def read(text: bytes) -> Policy:
    return policy_of(parse_policy(text), TENANT, 7, NOW)


def test_a_file_becomes_rules() -> None:
    assert parse_policy(TEXT).tenant == "acme"
    assert read(TEXT) == Policy(
        TENANT,
        7,
        NOW,
        (
            Rule("control_power", forbid=True),
            Rule("dangerous", second_above=NEVER),
            Rule("run_program", longest_days=30),
            Rule("run_script", roles=("admin",), second_above=0),
        ),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "tenant"),
        (b"tenant = 'a'\n[class.odd]\n", "no such class"),
        (b"tenant = 'a'\n[action.dangerous]\n", "no such action"),
        (b"tenant = 'a'\n[action.run_script]\nforbidden = true\n", "forbidden"),
        (b"tenant = 'a'\n[action.run_script]\nroles = ['king']\n", "king"),
        (b"tenant = 'a'\n[action.run_script]\nsecond_above = -1\n", "second_above"),
        (b"tenant = 'a'\n[action.run_script]\nsecond_above = 'always'\n", "second_above"),
        (b"tenant = 'a'\n[action.run_script]\nlongest_days = 500\n", "400 days"),
        (b"tenant = 'a'\n[action.cancel_order]\nforbid = true\n", "ends other orders"),
        (b"\xff", "no policy"),
        (b"tenant = ", "no policy"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: bytes, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        read(text)


def test_what_changes_is_shown_for_each_subject() -> None:
    rows = difference(no_policy(TENANT), read(TEXT))
    shown = {row["subject"]: (row["before"], row["after"]) for row in rows}
    assert shown["control_power"] == ("as built in", "forbidden")
    assert shown["run_script"][1] == "ordered by admin, two operators always"
    assert shown["dangerous"][1] == "never two operators"
    assert difference(read(TEXT), read(TEXT)) == []
