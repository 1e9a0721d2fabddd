"""How an order spreads over its machines: in batches, with a pause after each. Pure.

The terms are part of what the operator signs. A machine cannot see what others do, so it
does not check them; they prove to whoever audits a controller what it was told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final

from protocol.errors import InvalidError

MAX_BATCHES: Final = 100
MAX_SOAK: Final = timedelta(days=30)
_MAX_MACHINES: Final = 1_000_000
_WHOLE: Final = 100
_AMOUNT: Final = re.compile(r"([0-9]{1,7})(%?)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many machines, or so many percent of an order's machines; one of the two is 0."""

    machines: int = 0
    percent: int = 0

    def at_least(self, total: int) -> int:
        """How many of `total` machines that is: percent rounded up.

        >>> Amount(percent=10).at_least(25), Amount(machines=30).at_least(25)
        (3, 25)
        """
        return min(total, self.machines or -(-total * self.percent // _WHOLE))

    def at_most(self, total: int) -> int:
        """How many of `total` machines that is: percent rounded down.

        >>> Amount(percent=10).at_most(25), Amount().at_most(25)
        (2, 0)
        """
        return min(total, self.machines or total * self.percent // _WHOLE)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Batches are cumulative: so many machines have the order once a batch has begun.

    A batch begins `soak_s` seconds after the one before is over. More than `max_failures`
    failed machines halt the rollout.
    """

    batches: tuple[Amount, ...]
    soak_s: int = 0
    max_failures: Amount = Amount()

    @property
    def soak(self) -> timedelta:
        """The pause after a batch."""
        return timedelta(seconds=self.soak_s)


EVERYTHING: Final = Amount(percent=_WHOLE)
ALL_AT_ONCE: Final = (EVERYTHING,)


def parse_amount(text: str) -> Amount:
    """`12` or `10%`; raises `InvalidError` for anything else.

    >>> parse_amount("10%"), parse_amount("3")
    (Amount(machines=0, percent=10), Amount(machines=3, percent=0))
    """
    found = _AMOUNT.match(text)
    if found is None:
        raise InvalidError(f"{text[:40]!r} is neither a number of machines nor a percentage")
    amount = Amount(percent=int(found[1])) if found[2] else Amount(machines=int(found[1]))
    _check_amount(amount)
    return amount


def render_amount(amount: Amount) -> str:
    """The amount as it is typed.

    >>> render_amount(Amount(percent=10)), render_amount(Amount())
    ('10%', '0')
    """
    return f"{amount.percent}%" if amount.percent else str(amount.machines)


def parse_batches(text: str) -> tuple[Amount, ...]:
    """Batches such as `1,10%,50%,100%`; raises `InvalidError` unless they lead to everything.

    >>> [render_amount(one) for one in parse_batches("1,10%,100%")]
    ['1', '10%', '100%']
    """
    batches = tuple(parse_amount(word.strip()) for word in text.split(","))
    check_batches(batches)
    return batches


def render_batches(batches: Sequence[Amount]) -> str:
    """Batches as they are typed."""
    return ",".join(render_amount(one) for one in batches)


def check_batches(batches: Sequence[Amount]) -> None:
    """Raise `InvalidError` for batches that are empty, shrink, or leave machines out."""
    if not 0 < len(batches) <= MAX_BATCHES:
        raise InvalidError(f"a rollout has 1 to {MAX_BATCHES} batches")
    for one in batches:
        _check_amount(one)
        if one == Amount():
            raise InvalidError("a batch has at least one machine")
    for before, after in pairwise(batches):
        if (before.machines and after.machines and after.machines <= before.machines) or (
            before.percent and after.percent and after.percent <= before.percent
        ):
            raise InvalidError(
                f"batches count from the beginning and rise: {render_amount(after)} does not "
                f"follow {render_amount(before)}"
            )
    if batches[-1] != EVERYTHING:
        raise InvalidError(
            f"the last batch is 100%, so that no machine is left out: "
            f"{render_batches(batches)},100%"
        )


def check_rollout(rollout: Rollout) -> None:
    """Raise `InvalidError` for terms that make no sense."""
    check_batches(rollout.batches)
    _check_amount(rollout.max_failures)
    if not timedelta() <= rollout.soak <= MAX_SOAK:
        raise InvalidError(f"a batch soaks for at most {MAX_SOAK.days} days")


def _check_amount(amount: Amount) -> None:
    if amount.machines and amount.percent:
        raise InvalidError("an amount is a number of machines or a percentage, not both")
    if not 0 <= amount.percent <= _WHOLE or not 0 <= amount.machines <= _MAX_MACHINES:
        raise InvalidError(
            f"{render_amount(amount)} is too much: at most 100%, or {_MAX_MACHINES} machines"
        )
