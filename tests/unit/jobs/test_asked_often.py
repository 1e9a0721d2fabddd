"""What ten thousand machines have looked up again and again is found by an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from controller.db.database import Database
from controller.fleet.census import take_census
from controller.jobs import standing_views
from controller.jobs.progress import open_tasks
from protocol.identity import MachineIdentity, OperatorIdentity, Role
from protocol.ids import MachineId, TenantId
from tests.fakes.new_database import new_database

AT = datetime(2026, 5, 1, tzinfo=UTC)
MACHINE = MachineIdentity(TenantId("tn_1"), MachineId("mc_1"))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(new_database(tmp_path / "stead.db"))
    yield opened
    opened.close_now()


def plans_of(db: Database, look: Callable[[Connection], Any]) -> list[str]:
    """How SQLite goes about what is asked."""
    asked: list[tuple[str, Any]] = []

    def note(*said: Any) -> None:
        asked.append((said[2], said[3]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        db.read_now(look)
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    def explain(connection: Connection) -> list[str]:
        rows = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            for statement, values in asked
        ]
        return [row.detail for some in rows for row in some]

    return db.read_now(explain)


@pytest.mark.parametrize("states", [("queued",), ("queued", "offered", "running")])
def test_a_machine_s_tasks_are_found_by_the_machine(db: Database, states: tuple[str, ...]) -> None:
    """By their tenant every task that it ever had would be read."""
    plans = plans_of(db, lambda c: open_tasks(c, MACHINE, states))
    [tasks] = [plan for plan in plans if plan.startswith("SEARCH tasks")]
    assert "ix_tasks_machine_id_state (machine_id=? AND state=?)" in tasks


def test_open_tasks_are_counted_by_their_state(db: Database) -> None:
    bob = OperatorIdentity("bob", Role.TECHNICIAN, frozenset({TenantId("tn_1")}))
    plans = plans_of(db, lambda c: take_census(c, bob))
    [tasks] = [plan for plan in plans if plan.startswith("SEARCH tasks")]
    assert "ix_tasks_state_lease_until (state=?)" in tasks


@pytest.mark.parametrize("scope", [None, frozenset({TenantId("tn_1")})])
def test_standing_orders_are_listed_without_a_look_at_every_job(
    db: Database, scope: frozenset[TenantId] | None
) -> None:
    ann = OperatorIdentity("ann", Role.ADMIN, scope)
    plans = plans_of(db, lambda c: standing_views.listed(c, ann, standing_views.Wanted(), AT))
    assert not [plan for plan in plans if plan.startswith("SCAN jobs")]
