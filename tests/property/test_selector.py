from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.selector import Candidate, select_machines
from protocol.errors import SteadError

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)

candidates = st.lists(
    st.builds(
        Candidate,
        id=st.uuids().map(str),
        tenant=st.just("tn"),
        tenant_name=st.just("acme"),
        name=st.uuids().map(str),
        tags=st.frozensets(st.sampled_from("abc")),
        system=st.sampled_from(["Debian", "Ubuntu"]),
        linked=st.booleans(),
        last_seen_at=st.none() | st.just(NOW - timedelta(days=3)) | st.just(NOW),
        active=st.booleans(),
    ),
    max_size=6,
)
terms = st.sampled_from(["all", "tag:a", "tag:b", "os:debian", "linked", "stale>1d"])
expressions = st.recursive(
    terms,
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not {}".format, inner)
    ),
    max_leaves=8,
)


def meant(expression: str, fleet: list[Candidate]) -> set[str]:
    return {c.id for c in select_machines(expression, fleet, now=NOW)}


@given(expressions, expressions, candidates)
def test_selectors_obey_the_laws_of_sets(one: str, other: str, fleet: list[Candidate]) -> None:
    every = {c.id for c in fleet if c.active}
    first, second = meant(one, fleet), meant(other, fleet)
    assert meant(f"({one}) and ({other})", fleet) == first & second
    assert meant(f"({one}) or ({other})", fleet) == first | second
    assert meant(f"not ({one})", fleet) == every - first


@given(st.text(alphabet="ab:>() notdr/1dhm", max_size=60), candidates)
def test_any_text_is_an_answer_or_a_named_error(text: str, fleet: list[Candidate]) -> None:
    try:
        found = select_machines(text, fleet, now=NOW)
    except SteadError:
        return
    assert all(c.active for c in found)
