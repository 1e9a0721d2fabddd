from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.facts import parse_fact, render_fact
from controller.fleet.selector import Candidate, facts_in, select_machines
from protocol.errors import InvalidError, SteadError

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
FACTS = ("package:openssl<3.0.2", "cpu.cores>=8", "service:nginx")
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


known_facts = st.builds(
    lambda fleet, seeds: (
        fleet,
        {
            word: {c.id: (seed >> n) & 1 == 1 for n, c in enumerate(fleet) if (seed >> n) & 2}
            for word, seed in zip(FACTS, seeds, strict=True)
        },
    ),
    candidates,
    st.tuples(*[st.integers(0, 2**12)] * len(FACTS)),
)
asking = st.recursive(
    terms | st.sampled_from(FACTS),
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not {}".format, inner)
    ),
    max_leaves=8,
)


@given(asking, asking, known_facts)
def test_the_laws_of_and_or_and_not_hold_where_something_is_not_known(
    one: str, other: str, known: tuple[list[Candidate], dict[str, dict[str, bool]]]
) -> None:
    fleet, facts = known

    def those(expression: str) -> set[str]:
        return {c.id for c in select_machines(expression, fleet, now=NOW, facts=facts)}

    assert those(f"({one}) and ({other})") == those(one) & those(other)
    assert those(f"({one}) or ({other})") == those(one) | those(other)
    assert those(f"not not ({one})") == those(one)
    assert not those(one) & those(f"not ({one})")
    assert those(f"not (({one}) and ({other}))") == those(f"(not ({one})) or (not ({other}))")
    assert those(f"not (({one}) or ({other}))") == those(f"(not ({one})) and (not ({other}))")


@given(known_facts)
def test_who_has_not_said_is_meant_neither_by_a_fact_nor_by_its_not(
    known: tuple[list[Candidate], dict[str, dict[str, bool]]],
) -> None:
    fleet, facts = known
    for word in FACTS:
        silent = {c.id for c in fleet} - facts[word].keys()
        for expression in (word, f"not {word}"):
            found = select_machines(expression, fleet, now=NOW, facts=facts)
            assert not silent & {c.id for c in found}


@given(st.text(alphabet="packge:servmoycuports.<>=!0123gk ~+-", max_size=30))
def test_any_word_is_a_fact_none_or_a_named_error_and_reads_as_it_is_written(word: str) -> None:
    try:
        fact = parse_fact(word)
    except InvalidError:
        return
    assert fact is None or parse_fact(render_fact(fact)) == fact


@given(asking)
def test_the_facts_of_an_expression_are_found(expression: str) -> None:
    assert set(facts_in(expression)) == {word for word in FACTS if word in expression}
