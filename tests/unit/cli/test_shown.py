"""What a restore that removes is bound to: what somebody has seen."""

from __future__ import annotations

import pytest

from controller.cli.commands.restoring import earlier, plan_of
from protocol.action import RestoreFiles


@pytest.mark.parametrize(
    ("shown", "now", "bound"),
    [
        pytest.param(5, 9, 5, id="as the machine says"),
        pytest.param(9, 9, 9, id="at once"),
        pytest.param(12, 9, 9, id="its clock is ahead, or somebody made that up"),
        pytest.param(0, 9, 9, id="it does not say, or nobody was shown anything"),
    ],
)
def test_nothing_goes_that_came_after_the_order(shown: int, now: int, bound: int) -> None:
    assert earlier(shown, now) == bound


def test_what_is_looked_at_is_what_would_be_done() -> None:
    action = RestoreFiles("rp", b"etc", (b"sealed",), b"/", delete_extra=True, looked_at_ms=7)
    plan = plan_of(action)
    assert {name: getattr(plan, name) for name in RestoreFiles.__slots__} == {
        name: getattr(action, name) for name in RestoreFiles.__slots__
    }
