"""Laws of the audit chain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from controller.audit.chain import (
    EMPTY,
    Broken,
    Entry,
    Head,
    Verified,
    entry_hash,
    verify,
)

TENANT = "tn_1"
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
MOMENTS = st.datetimes(timezones=st.just(UTC))


def linked(previous: bytes, seq: int, at: datetime, actor: str, event: str, body: str) -> Entry:
    made = entry_hash(previous, TENANT, seq, at, actor, event, body)
    return Entry(TENANT, seq, at, actor, event, body, previous, made)


@st.composite
def chains(draw: st.DrawFn, least: int = 1) -> list[Entry]:
    acts = draw(st.lists(st.tuples(MOMENTS, WORDS, WORDS, WORDS), min_size=least, max_size=8))
    chain: list[Entry] = []
    head = EMPTY
    for at, actor, event, body in acts:
        chain.append(linked(head.hash, head.seq + 1, at, actor, event, body))
        head = head_of(chain)
    return chain


def head_of(chain: list[Entry]) -> Head:
    return Head(chain[-1].seq, chain[-1].hash) if chain else EMPTY


@given(chains(least=0))
def test_a_chain_as_written_verifies_to_its_head(chain: list[Entry]) -> None:
    assert verify(chain, TENANT, expected=head_of(chain)) == Verified(head_of(chain))


@given(chains(), st.data())
def test_any_edit_of_an_entry_is_found_where_it_is(chain: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(chain) - 1))
    old = chain[place]
    changes: dict[str, object] = {
        "tenant_id": "tn_2",
        "seq": old.seq + data.draw(st.sampled_from([-1, 1, 100])),
        "at": old.at + timedelta(microseconds=1)
        if old.at < datetime.max.replace(tzinfo=UTC)
        else old.at - timedelta(microseconds=1),
        "actor": data.draw(WORDS),
        "event": data.draw(WORDS),
        "body": data.draw(WORDS),
        "previous": data.draw(st.binary(min_size=32, max_size=32)),
        "hash": data.draw(st.binary(min_size=32, max_size=32)),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    new = replace(old, **{name: changes[name]})  # type: ignore[arg-type]
    assume(new != old)
    found = verify([*chain[:place], new, *chain[place + 1 :]], TENANT)
    assert isinstance(found, Broken)
    assert found.seq == place + 1


@given(chains(), st.data())
def test_characters_moved_from_one_field_to_the_next_are_found(
    chain: list[Entry], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(chain) - 1))
    old = chain[place]
    both = old.actor + old.event
    cut = data.draw(st.integers(0, len(both)))
    new = replace(old, actor=both[:cut], event=both[cut:])
    assume(new != old)
    assert isinstance(verify([*chain[:place], new, *chain[place + 1 :]], TENANT), Broken)


@given(chains(least=2), st.data())
def test_an_entry_cut_out_before_the_last_is_found(chain: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(chain) - 2))
    found = verify([*chain[:place], *chain[place + 1 :]], TENANT)
    assert isinstance(found, Broken)
    assert found.seq == place + 1


@given(chains(), st.data())
def test_a_cut_at_the_end_is_found_by_who_saw_the_head(
    chain: list[Entry], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(chain) - 1))
    found = verify(chain[:kept], TENANT, expected=head_of(chain))
    assert isinstance(found, Broken)
    assert found.seq == kept + 1


@given(chains(least=2), st.data())
def test_two_entries_swapped_are_found(chain: list[Entry], data: st.DataObject) -> None:
    one, other = sorted(data.draw(st.permutations(range(len(chain))))[:2])
    swapped = list(chain)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    found = verify(swapped, TENANT)
    assert isinstance(found, Broken)
    assert found.seq == one + 1


@given(chains(), MOMENTS, WORDS, st.data())
def test_an_entry_slipped_in_is_found(
    chain: list[Entry], at: datetime, word: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(chain) - 1))
    forged = linked(head_of(chain[:place]).hash, place + 1, at, word, word, word)
    assume(forged != chain[place])
    assert isinstance(verify([*chain[:place], forged, *chain[place:]], TENANT), Broken)


@given(chains(), MOMENTS, WORDS, st.data())
def test_a_history_written_anew_is_found_by_who_saw_the_head(
    chain: list[Entry], at: datetime, word: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(chain) - 1))
    anew = chain[:place]
    for old in chain[place:]:
        head = head_of(anew)
        first = old.seq == place + 1
        fields = (at, word, word, word) if first else (old.at, old.actor, old.event, old.body)
        anew.append(linked(head.hash, head.seq + 1, *fields))
    assume(anew != chain)
    assert isinstance(verify(anew, TENANT, expected=head_of(chain)), Broken)
