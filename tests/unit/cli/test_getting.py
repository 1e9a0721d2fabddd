"""Which get is worth going on with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller.cli.files.getting import FRESH, read_long_ago
from protocol.v1.job_pb2 import Job, Task

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def job(*ended: tuple[str, timedelta]) -> Job:
    return Job(
        tasks=[
            Task(state=state, ended_at_ms=int((NOW - ago).timestamp() * 1000))
            for state, ago in ended
        ]
    )


def test_what_was_read_long_ago_is_not_gone_on_with_by_itself() -> None:
    late = FRESH + timedelta(seconds=1)
    assert read_long_ago(job(("succeeded", FRESH)), NOW) is None
    # A machine that has not read it yet will read it as it then is.
    assert read_long_ago(job(("running", late), ("failed", late)), NOW) is None
    both = job(("succeeded", FRESH), ("succeeded", late))
    assert read_long_ago(both, NOW) == NOW - late
