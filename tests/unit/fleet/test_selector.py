from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.fleet.names import name_from
from controller.fleet.selector import Candidate, facts_in, names_in, select_machines
from protocol.errors import InvalidError, NotFoundError

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)


def machine(name: str, tenant: str = "acme", *tags: str, **more: object) -> Candidate:
    values: dict[str, object] = {
        "id": f"mc_{tenant}_{name}",
        "tenant": f"tn_{tenant}",
        "tenant_name": tenant,
        "name": name,
        "tags": frozenset(tags),
        "system": "Debian GNU/Linux 12",
        "linked": True,
        "last_seen_at": NOW,
        **more,
    }
    return Candidate(**values)  # type: ignore[arg-type]


FLEET = [
    machine("web-02", "acme", "web"),
    machine("web-01", "acme", "web", "pilot"),
    machine("db-01", "acme", "db", system="Ubuntu 24.04", linked=False),
    machine("old", "acme", last_seen_at=NOW - timedelta(days=8), linked=False),
    machine("new", "acme", last_seen_at=None, linked=False),
    machine("gone", "acme", "web", active=False),
    machine("web-01", "beta", "web"),
]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("all", ["db-01", "new", "old", "web-01", "web-02", "web-01"]),
        ("web-02", ["web-02"]),
        ("mc_acme_db-01", ["db-01"]),
        ("beta/web-01", ["web-01"]),
        ("tag:web and not tag:pilot and not beta/web-01", ["web-02"]),
        ("os:ubuntu", ["db-01"]),
        ("not linked", ["db-01", "new", "old"]),
        ("stale>7d", ["new", "old"]),
        ("stale>9d", ["new"]),
        ("tag:db or tag:pilot", ["db-01", "web-01"]),
        ("tag:db or tag:web and tag:pilot", ["db-01", "web-01"]),
        ("(tag:db or tag:web) and tag:pilot", ["web-01"]),
        ("not (tag:db or tag:web)", ["new", "old"]),
        ("not not db-01", ["db-01"]),
        ("tag:nobody", []),
        ("gone", []),
    ],
)
def test_a_selector_means_these(expression: str, names: list[str]) -> None:
    assert [c.name for c in select_machines(expression, FLEET, now=NOW)] == names


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "  ",
        "and",
        "web-02 and",
        "not",
        "(web-02",
        "web-02)",
        "web-02 db-01",
        "tag:",
        "group:x",
        "stale>7",
        "stale>7y",
        "web-01",
        "(" * 200 + "all" + ")" * 200,
        "not " * 200 + "all",
        "x" * 20_000,
    ],
)
def test_what_cannot_be_read_or_means_two_is_refused(expression: str) -> None:
    with pytest.raises(InvalidError):
        select_machines(expression, FLEET, now=NOW)


def test_a_machine_may_be_called_as_a_fact_is_and_none_as_a_word_of_selectors() -> None:
    called = [machine("update"), machine("memory")]
    assert facts_in("update or memory") == []
    found = select_machines("update or memory", called, now=NOW)
    assert [c.name for c in found] == ["memory", "update"]
    # Where no machine has the name, it is said how the fact is written.
    with pytest.raises(InvalidError, match="write update:NAME"):
        select_machines("update", FLEET, now=NOW)
    assert name_from("linked") == "linked-1"


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("web-01", ["web-01"]),
        ("acme/web-01 or (db-01 or web-01)", ["acme/web-01", "db-01", "web-01"]),
        ("web-01 and db-01", ["web-01", "db-01"]),
        ("update", ["update"]),
        ("all", None),
        ("web-01 or linked", None),
        ("not web-01", None),
        ("web-01 or tag:db", None),
        ("web-01 or stale>7d", None),
        ("WEB-01", None),
        ("()", None),
        ("", None),
    ],
)
def test_only_where_an_expression_can_mean_no_others_its_names_are_enough(
    expression: str, names: list[str] | None
) -> None:
    assert names_in(expression) == names


def test_a_name_without_a_machine_is_an_error_and_never_nobody() -> None:
    with pytest.raises(NotFoundError, match="nope"):
        select_machines("tag:web and not nope", FLEET, now=NOW)
