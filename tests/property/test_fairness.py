"""Laws of sharing: nobody is passed over, and who is busy gets an equal part."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.vault.upload.fairness import FairQueue

COST = st.integers(1, 1000)
NAMES = st.sampled_from("abc")
PIECES = st.lists(st.tuples(NAMES, NAMES, COST), max_size=60)


def filled(pieces: list[tuple[str, str, int]]) -> FairQueue[int]:
    queue: FairQueue[int] = FairQueue()
    for number, (tenant, machine, cost) in enumerate(pieces):
        queue.add(tenant, machine, cost, number)
    return queue


@given(PIECES)
def test_every_piece_has_its_turn_and_each_machines_in_order(
    pieces: list[tuple[str, str, int]],
) -> None:
    queue = filled(pieces)
    taken = [queue.take() for _ in pieces]
    assert sorted(taken) == list(range(len(pieces)))
    by_machine = defaultdict(list)
    for number in taken:
        by_machine[pieces[number][:2]].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_machine.values())
    with pytest.raises(IndexError):
        queue.take()


@given(PIECES)
def test_busy_tenants_and_busy_machines_of_one_are_never_further_apart_than_one_piece(
    pieces: list[tuple[str, str, int]],
) -> None:
    queue = filled(pieces)
    tenants, machines = Counter[str](), Counter[tuple[str, str]]()
    served_t, served_m = Counter[str](), Counter[tuple[str, str]]()
    for tenant, machine, _ in pieces:
        tenants[tenant] += 1
        machines[tenant, machine] += 1
    greatest = max((cost for _, _, cost in pieces), default=0)
    for _ in pieces:
        tenant, machine, cost = pieces[queue.take()]
        served_t[tenant] += cost
        served_m[tenant, machine] += cost
        tenants[tenant] -= 1
        machines[tenant, machine] -= 1
        busy = [served_t[name] for name in tenants if tenants[name]]
        assert max(busy, default=0) - min(busy, default=0) <= greatest
        for owner in tenants:
            mine = [served_m[key] for key in machines if key[0] == owner and machines[key]]
            assert max(mine, default=0) - min(mine, default=0) <= greatest


@given(st.integers(1, 30), st.integers(1, 30))
def test_many_machines_get_a_tenant_no_more(many: int, rounds: int) -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(many):
        for _ in range(rounds):
            queue.add("large", f"machine{number}", 100, "large")
    for _ in range(rounds):
        queue.add("small", "machine", 100, "small")
    first = Counter(queue.take() for _ in range(2 * rounds))
    assert abs(first["small"] - first["large"]) <= 1


@given(st.integers(1, 50))
def test_a_rest_saves_up_no_turns(head_start: int) -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(head_start + 10):
        queue.add("a", "m", 100, "a")
    for _ in range(head_start):
        assert queue.take() == "a"
    for _ in range(10):
        queue.add("b", "m", 100, "b")
    assert abs(Counter(queue.take() for _ in range(10))["b"] - 5) <= 1


@given(PIECES, st.integers(0, 59))
def test_a_piece_that_was_taken_back_never_comes(
    pieces: list[tuple[str, str, int]], which: int
) -> None:
    queue: FairQueue[list[int]] = FairQueue()
    works = [[number] for number in range(len(pieces))]
    for work, (tenant, machine, cost) in zip(works, pieces, strict=True):
        queue.add(tenant, machine, cost, work)
    if which < len(pieces):
        queue.drop(*pieces[which][:2], works[which])
    taken = [queue.take()[0] for _ in range(len(queue))]
    assert sorted(taken) == [n for n in range(len(pieces)) if n != which]
