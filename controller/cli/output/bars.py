"""Figures as bars of text: what a terminal can show of a history. Pure."""

from __future__ import annotations

from collections.abc import Sequence

EIGHTHS = " ▏▎▍▌▋▊▉█"


def render_bar(value: float, greatest: float, width: int) -> str:
    """A bar of at most `width` cells, in steps of an eighth; what is not nothing is seen.

    >>> render_bar(5, 10, 4), render_bar(1, 1000, 4), render_bar(0, 10, 4)
    ('██', '▏', '')
    """
    if value <= 0 or greatest <= 0 or width <= 0:
        return ""
    eighths = max(1, round(min(value / greatest, 1.0) * width * 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def render_sparks(values: Sequence[float]) -> str:
    """A row of small columns, one for each value.

    >>> render_sparks([0, 1, 2, 8])
    '▁▁▂█'
    """
    steps = "▁▂▃▄▅▆▇█"
    top = max(values, default=0)
    if top <= 0:
        return steps[0] * len(values)
    return "".join(steps[min(7, int(max(v, 0) / top * 8 - 1e-9))] for v in values)
