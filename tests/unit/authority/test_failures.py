"""Refused enrollments are all counted, and written once a minute."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.authority.failures import Failures, Refusals
from protocol.errors import Code

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
CODES = (Code.TOKEN_INVALID, Code.TOKEN_USED, Code.CLOCK_SKEW)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tn_1", "tn_2", None]), st.sampled_from(CODES), st.integers(0, 50)
        ),
        max_size=60,
    )
)
def test_every_refusal_is_written_once_and_none_twice_within_a_minute(
    refused: list[tuple[str | None, Code, int]],
) -> None:
    failures = Failures()
    now = NOW
    written: Counter[tuple[str, str]] = Counter()
    last: dict[str, datetime] = {}

    def write(refusals: Refusals) -> None:
        for code, count in refusals.counts.items():
            written[refusals.tenant, code] += count

    for tenant, code, seconds in refused:
        now += timedelta(seconds=seconds)
        due = failures.note(tenant, code, now)
        if due is not None:
            assert now - last.get(due.tenant, datetime.min.replace(tzinfo=UTC)) >= timedelta(
                minutes=1
            )
            last[due.tenant] = now
            write(due)
    for rest in failures.rest():
        write(rest)
    assert written == Counter((tenant or "", code.value) for tenant, code, _ in refused)


def test_a_clock_set_back_does_not_silence_the_log() -> None:
    failures = Failures()
    assert failures.note(None, Code.TOKEN_INVALID, NOW)
    assert failures.note(None, Code.TOKEN_INVALID, NOW - timedelta(days=1))
