"""Share work between tenants, and within a tenant between its machines.

Whoever got least so far goes next: of two tenants that both have work waiting each gets
half, however many machines either sends with. One that comes after a rest begins where
the others are, so nobody saves up turns. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Machine(Generic[T]):
    """Pieces of work that wait, oldest first, each with its cost."""

    served: int
    waiting: deque[tuple[int, T]] = field(default_factory=deque)


@dataclass(slots=True)
class _Tenant(Generic[T]):
    served: int
    floor: int = 0
    machines: dict[str, _Machine[T]] = field(default_factory=dict)


class FairQueue(Generic[T]):
    """A queue in which the order of tenants and machines is that of need, not of arrival.

    Costs are in bytes and at least 1. What nobody waits for is forgotten.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant[T]] = {}
        self._floor = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._tenants

    def add(self, tenant: str, machine: str, cost: int, work: T) -> None:
        """Let a piece of work wait."""
        ours = self._tenants.get(tenant)
        if ours is None:
            ours = self._tenants[tenant] = _Tenant(self._floor)
        mine = ours.machines.get(machine)
        if mine is None:
            mine = ours.machines[machine] = _Machine(ours.floor)
        mine.waiting.append((max(1, cost), work))
        self._count += 1

    def take(self) -> T:
        """The piece that is next; `IndexError` when none waits."""
        if not self._count:
            raise IndexError("nothing waits")
        tenant = min(self._tenants, key=lambda name: (self._tenants[name].served, name))
        ours = self._tenants[tenant]
        machine = min(ours.machines, key=lambda name: (ours.machines[name].served, name))
        mine = ours.machines[machine]
        cost, work = mine.waiting.popleft()
        self._floor, ours.floor = ours.served, mine.served
        ours.served += cost
        mine.served += cost
        self._tidy(tenant, machine)
        self._count -= 1
        return work

    def drop(self, tenant: str, machine: str, work: T) -> None:
        """Take back a piece that still waits."""
        mine = self._tenants[tenant].machines[machine]
        mine.waiting = deque(one for one in mine.waiting if one[1] is not work)
        self._tidy(tenant, machine)
        self._count -= 1

    def _tidy(self, tenant: str, machine: str) -> None:
        ours = self._tenants[tenant]
        if not ours.machines[machine].waiting:
            del ours.machines[machine]
        if not ours.machines:
            del self._tenants[tenant]
