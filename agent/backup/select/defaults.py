"""What each system holds that nobody wants back, as rules.

Only what the system or its programs make again by themselves. Directories stay and
their content goes, so that a restored system finds them. Each rule can be taken back
with a rule that begins with `!`, or all of them switched off.
"""

from __future__ import annotations

import sys
from typing import Final

LINUX: Final = (
    b"/dev/*",
    b"/proc/*",
    b"/run/*",
    b"/sys/*",
    b"/tmp/*",
    b"/var/run/*",
    b"/var/lock/*",
    b"/var/tmp/*",
    b"/lost+found",
    b"/swapfile",
    b"/swap.img",
    b"/var/swap",
    b"/var/swapfile",
    b"/var/crash/*",
    b"/var/lib/systemd/coredump/*",
    b"/var/cache/apt/archives/*",
    b"/var/cache/apt/*.bin",
    b"/var/cache/dnf/*",
    b"/var/cache/yum/*",
    b"/var/cache/pacman/pkg/*",
    b"/var/cache/apk/*",
    b"/var/lib/apt/lists/*",
    b"/home/*/.cache/*",
    b"/root/.cache/*",
    b"/home/*/.local/share/Trash/*",
    b"/root/.local/share/Trash/*",
    b"/home/*/.thumbnails/*",
)
DARWIN: Final = (
    b"/.Spotlight-V100",
    b"/.fseventsd",
    b"/.DocumentRevisions-V100",
    b"/.Trashes",
    b"/dev/*",
    b"/private/tmp/*",
    b"/private/var/tmp/*",
    b"/private/var/vm/*",
    b"/private/var/folders/*",
    b"/Library/Caches/*",
    b"/Users/*/Library/Caches/*",
    b"/Users/*/.Trash/*",
)
WINDOWS: Final = (
    b"/*/pagefile.sys",
    b"/*/swapfile.sys",
    b"/*/hiberfil.sys",
    b"/*/System Volume Information",
    b"/*/$Recycle.Bin",
    b"/*/Windows/Temp/*",
    b"/*/Windows/SoftwareDistribution/Download/*",
    b"/*/Users/*/AppData/Local/Temp/*",
)
SYSTEMS: Final = {"linux": LINUX, "darwin": DARWIN, "win32": WINDOWS}


def default_rules(system: str = sys.platform) -> tuple[bytes, ...]:
    """The rules of a system, named as Python names it; none for others.

    >>> default_rules("linux")[1]
    b'/proc/*'
    """
    return SYSTEMS.get(system, ())
