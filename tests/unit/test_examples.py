"""The examples in the documentation of every function are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(TOP).with_suffix("").parts)
    for part in ("agent", "controller", "protocol", "recovery")
    for path in (TOP / part).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    ran = doctest.testmod(importlib.import_module(name))
    assert ran.attempted > 0
    assert ran.failed == 0
