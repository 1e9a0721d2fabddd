"""Compile our modules before anything is timed.

An installed program is compiled; one in a checkout is only where it may write there, and
what the comparisons start may not. Without this every command would compile what it
imports, each time.
"""

from __future__ import annotations

import compileall
from pathlib import Path

PACKAGES = ("agent", "controller", "protocol")


def compile_packages() -> None:
    """Leave compiled files beside the sources; ends the program when that fails."""
    top = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        if not compileall.compile_dir(top / package, quiet=1):
            raise SystemExit(f"{top / package} cannot be compiled")
