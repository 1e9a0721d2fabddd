from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from controller.cli.commands.run import command
from controller.cli.commands.snapshot import newest_runs
from controller.cli.options.moment import parse_until
from controller.cli.options.repeating import render_standing, standing_of
from protocol.codec import to_ms
from protocol.errors import InvalidError
from protocol.standing import Standing
from protocol.v1.job_pb2 import Job

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NONE = {"every": None, "until": None, "max_runs": None, "standing_spread": None}


def options(**changes: object) -> dict[str, object]:
    return {**NONE, "standing_name": "", **changes}


def test_an_order_stands_when_it_is_told_how_often_and_until_when() -> None:
    assert standing_of(options(), NOW) is None
    until = NOW + timedelta(days=90)
    spread = timedelta(hours=1)
    every = options(every="daily", until=until, max_runs=3, standing_spread=spread)
    found = standing_of({**every, "standing_name": "tidy"}, NOW)
    assert found == Standing("daily", to_ms(until), 3, 3600, "tidy")
    said = render_standing(found)
    assert "daily" in said
    assert "at most 3 times" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"until": NOW + timedelta(days=1)}, "add --every"),
        ({"max_runs": 3}, "add --every"),
        ({"standing_name": "x"}, "add --every"),
        ({"every": "daily"}, "add --until"),
        ({"every": "daily", "until": NOW + timedelta(days=401)}, "within 400 days"),
    ],
)
def test_what_does_not_go_together_is_said(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        standing_of(options(**changes), NOW)


@pytest.mark.parametrize("text", ["2026-04-30", "now", "yesterday", "often", "0d", "", "99999999d"])
def test_an_end_lies_in_the_future(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_until(text, now=NOW)


def test_an_end_is_a_date_or_so_long_from_now() -> None:
    assert parse_until("90d", now=NOW) == NOW + timedelta(days=90)
    assert parse_until("2027-01-31T00:00Z", now=NOW) == datetime(2027, 1, 31, tzinfo=UTC)


def test_a_schedule_that_is_none_is_refused_before_anything_is_asked() -> None:
    done = CliRunner().invoke(command, ["all", "--every", "61 * * * *", "--", "true"])
    assert done.exit_code == 2
    assert "no cron expression" in done.output.replace("\n", " ")


def test_of_a_standing_order_s_runs_a_picture_has_the_newest() -> None:
    jobs = [
        Job(job_id=name, standing_order_id=order)
        for name, order in [("5", "a"), ("4", ""), ("3", "a"), ("2", "b"), ("1", ""), ("0", "b")]
    ]
    assert [job.job_id for job in newest_runs(jobs)] == ["5", "4", "2", "1"]
