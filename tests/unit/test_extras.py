"""What an extra installs is enough for the part of the project that it is for."""

from __future__ import annotations

import pytest

from tests.lacking import TOP, lacking, run_lacking

IMPORTING = """
import importlib
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in {lacking}:
            print(f"{{name}}: {{error}}")
"""


def modules(part: str) -> list[str]:
    return [
        ".".join(path.relative_to(TOP).with_suffix("").parts)
        for path in sorted((TOP / part).rglob("*.py"))
        if path.name != "__init__.py" and "migrations" not in path.parts
    ]


@pytest.mark.parametrize(
    ("part", "extra"),
    [("agent", "agent"), ("controller", "controller"), ("recovery", "controller")],
)
def test_a_part_imports_nothing_that_is_not_installed_with_it(part: str, extra: str) -> None:
    assert lacking(extra)
    ended = run_lacking(extra, IMPORTING.format(lacking=lacking(extra)), *modules(part))
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
