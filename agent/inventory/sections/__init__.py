"""The sections there are. Each lives in a file of its own and knows none of the others."""

from __future__ import annotations

from agent.inventory.section import Section
from agent.inventory.sections import (
    cpu,
    disks,
    filesystems,
    memory,
    network,
    packages,
    ports,
    services,
    system,
    users,
)

SECTIONS: tuple[Section, ...] = (
    system.SECTION,
    cpu.SECTION,
    memory.SECTION,
    disks.SECTION,
    filesystems.SECTION,
    network.SECTION,
    packages.SECTION,
    services.SECTION,
    ports.SECTION,
    users.SECTION,
)
