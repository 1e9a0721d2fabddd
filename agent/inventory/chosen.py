"""The sections of this system: the same names and facts, collected in its own way."""

from __future__ import annotations

import sys

from agent.inventory.section import Section

if sys.platform == "win32":
    from agent.inventory.windows.sections import SECTIONS
elif sys.platform == "darwin":
    from agent.inventory.macos.sections import SECTIONS
else:
    from agent.inventory.sections import SECTIONS

__all__ = ["SECTIONS", "section_of"]


def section_of(name: str) -> Section:
    """The section of a name that there is."""
    return next(section for section in SECTIONS if section.name == name)
