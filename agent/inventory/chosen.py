"""The sections and live figures of this system: the same facts, collected in its own way."""

from __future__ import annotations

import sys

from agent.inventory.section import Section

if sys.platform == "win32":
    from agent.inventory.windows.sections import SECTIONS
elif sys.platform == "darwin":
    from agent.inventory.macos.sections import SECTIONS
else:
    from agent.inventory.sections import SECTIONS

if sys.platform == "linux":
    from agent.inventory.live import live as live_here
else:
    from agent.inventory.live_by_psutil import live_by_psutil as live_here

__all__ = ["SECTIONS", "live_here", "section_of"]


def section_of(name: str) -> Section:
    """The section of a name that there is."""
    return next(section for section in SECTIONS if section.name == name)
