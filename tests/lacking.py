"""A Python that lacks what one of the project's extras does not install."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

TOP = Path(__file__).parents[1]
REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {lacking}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
"""


def lacking(extra: str) -> set[str]:
    """The modules that other extras install and this one does not."""
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name: set(map(_distribution, wanted)) for name, wanted in extras.items()}
    others = named["agent"] | named["controller"]
    return {
        module
        for module, distributions in packages_distributions().items()
        if set(map(_distribution, distributions)) & (others - named[extra])
    }


def run_lacking(extra: str, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program with `argv` where nothing but the extra is installed."""
    text = REFUSING.format(lacking=lacking(extra)) + program
    return subprocess.run(
        [sys.executable, "-c", text, *argv], cwd=TOP, capture_output=True, text=True, check=False
    )


def _distribution(wanted: str) -> str:
    """The name of a distribution in a requirement, as names are compared.

    >>> _distribution("Rich_Click>=1.9.9")
    'rich-click'
    """
    found = re.match(r"[A-Za-z0-9._-]+", wanted)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()
