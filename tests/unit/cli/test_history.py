"""Pictures of a history fit the terminal and show what they are about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.output.bars import render_bar
from controller.cli.points.history import Mark, render_history
from controller.cli.vault.proved import drill_state

START = datetime(2026, 5, 1, tzinfo=UTC)
SIZES = st.integers(0, 1 << 60)


@given(
    sizes=st.lists(st.tuples(SIZES, SIZES), max_size=60),
    width=st.integers(60, 200),
    lines=st.integers(1, 50),
)
def test_no_line_is_wider_than_the_terminal(
    sizes: list[tuple[int, int]], width: int, lines: int
) -> None:
    marks = [Mark(START + timedelta(hours=n), *pair) for n, pair in enumerate(sizes)]
    shown = render_history(marks, lines=lines, width=width)
    assert all(line.cell_len <= width for line in shown)
    assert len(shown) <= lines + 2
    assert bool(shown) == bool(sizes)


@given(value=SIZES, greatest=SIZES, width=st.integers(0, 40))
def test_a_bar_is_as_long_as_its_share_and_never_longer(
    value: int, greatest: int, width: int
) -> None:
    bar = render_bar(value, greatest, width)
    assert len(bar) <= width
    assert bool(bar) == (value > 0 and greatest > 0 and width > 0)


def test_the_newest_restore_point_is_the_last_line() -> None:
    marks = [Mark(START + timedelta(days=n), 1 << n, 1) for n in range(20)]
    shown = [line.plain for line in render_history(marks, lines=7, width=80)]
    assert "512.0 KiB" in shown[-2]


@pytest.mark.parametrize(
    ("last", "newest", "said"),
    [
        (None, "", "untried"),
        (START, "good", "good"),
        (START - timedelta(days=40), "good", "late"),
        (START, "wrong", "wrong"),
        (None, "failed", "failed"),
    ],
)
def test_a_machine_without_a_recent_good_drill_is_not_well(
    last: datetime | None, newest: str, said: str
) -> None:
    row = {"last_point_at": START, "last_drill_at": last, "drill_state": newest}
    assert drill_state(row, START) == said
    assert drill_state({**row, "last_point_at": None}, START) == ""
