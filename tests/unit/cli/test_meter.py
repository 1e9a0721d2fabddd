"""What a person reads of a long command, and that scripts read nothing of it."""

from __future__ import annotations

import pytest

from controller.cli.output import meter as module
from controller.cli.output.meter import meter, render_done


def test_nothing_is_said_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with meter("check", 100) as told:
        told(50, "web-01")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.parametrize("done", [0, 1, 999_999_999_999, 1 << 50])
def test_it_fits_a_narrow_terminal(done: int) -> None:
    words = render_done(done, 1 << 50, 86_399.0 * 20, "bytes")
    assert len(words) + module.LABEL + module.BAR + 2 <= 80
    assert "nan" not in words


def test_no_rate_is_guessed_at_the_beginning() -> None:
    assert "/s" not in render_done(10, 100, 0.5, "")
