"""Which file systems are no storage: what lies there is made up by the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# fmt: off
PSEUDO: Final = frozenset({
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
    "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nfsd", "nsfs", "proc", "pstore",
    "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
})
# fmt: on


def pseudo_devices(mountinfo: bytes) -> frozenset[int]:
    """Numbers of the devices that are no storage, from the text of /proc/self/mountinfo."""
    found = set()
    for line in mountinfo.split(b"\n"):
        head, _, tail = line.partition(b" - ")
        fields, kind = head.split(), tail.split()
        if len(fields) > 2 and kind and kind[0].decode(errors="replace") in PSEUDO:
            major, _, minor = fields[2].partition(b":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def read_pseudo_devices() -> frozenset[int]:
    """The same of this system; none where there is no such list."""
    try:
        return pseudo_devices(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return frozenset()
