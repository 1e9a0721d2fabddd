"""Mounted file systems that hold data: where, on what, of which kind, how large.

Format: fstab(5) as in `/proc/self/mounts`, with its octal escapes. Left out is what the
kernel makes up (pseudo file systems), memory, and what containers and application
images mount for themselves. How full they are is a live figure.
"""

from __future__ import annotations

import re

import msgspec

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources

PSEUDO = re.compile(
    r"anon_inodefs|autofs|bdev|binfmt_misc|bpf|cgroup|cgroup2|configfs|cpuset|debugfs|"
    r"devfs|devpts|devtmpfs|dmabuf|efivarfs|efivars|functionfs|fusectl|fuse\.gvfsd-fuse|"
    r"fuse\.lxcfs|fuse\.portal|fuse\.snapfuse|hugetlbfs|ipathfs|mqueue|none|nfsd|nsfs|"
    r"openpromfs|pipefs|proc|pstore|ramfs|resctrl|rootfs|rpc_pipefs|secretmem|securityfs|"
    r"selinuxfs|smackfs|sockfs|spufs|squashfs|sysfs|tmpfs|tracefs|usbfs|virtual"
)
REMOTE = re.compile(
    r"9p|afs|ceph|cifs|coda|davfs|fuse\.ceph|fuse\.glusterfs|fuse\.rclone|fuse\.s3fs|"
    r"fuse\.sshfs|gfs2|glusterfs|lustre|ncpfs|nfs|nfs4|ocfs2|smb2|smb3|smbfs|virtiofs"
)
SIZE_MOVES = frozenset({"zfs"})
SECRET = re.compile(r"(?i)(pass\w*|secret|key)=(.*)")


class Mount(msgspec.Struct, frozen=True, order=True):
    """A mounted file system; the size is null where asking could hang or never settles."""

    path: str
    device: str
    kind: str
    options: list[str]
    remote: bool
    size_bytes: int | None = None


class Filesystems(Facts, frozen=True, kw_only=True):
    """Mounts sorted by path, then by device."""

    mounts: list[Mount]


def parse_mounts(text: str) -> list[Mount]:
    r"""The lines that hold data.

    >>> found = parse_mounts("/dev/sda1 /a\\040b ext4 rw 0 0\nproc /proc proc rw 0 0\n")
    >>> [mount.path for mount in found]
    ['/a b']
    """
    found = set()
    result = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        device, path, kind, options = (unescape(field) for field in fields[:4])
        inner = kind == "overlay" and path != "/"
        if PSEUDO.fullmatch(kind) or inner or (path, device) in found:
            continue
        found.add((path, device))
        remote = REMOTE.fullmatch(kind) is not None
        result.append(Mount(path, device, kind, sorted(map(_hidden, options.split(","))), remote))
    return sorted(result)


def unescape(field: str) -> str:
    """Undo the octal escapes of spaces, tabs, line ends and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _hidden(option: str) -> str:
    return SECRET.sub(r"\1=<hidden>", option)


def collect(sources: Sources) -> Filesystems:
    """Read the mounts, and ask each local one for its size."""
    gaps: dict[str, str] = {}
    mounts = []
    for mount in parse_mounts(sources.text("/proc/self/mounts")):
        size = None
        if mount.remote:
            gaps[mount.path] = "the size of a remote file system is not asked for: it could hang"
        elif mount.kind in SIZE_MOVES:
            gaps[mount.path] = f"{mount.kind} has no fixed size"
        else:
            try:
                size = sources.capacity(mount.path).total_bytes
            except OSError as error:
                gaps[mount.path] = f"no size: {error.strerror}"
        mounts.append(msgspec.structs.replace(mount, size_bytes=size))
    return Filesystems(mounts=mounts, gaps=gaps)


SECTION = Section("filesystems", 1, collect, budget_s=5, every_s=3600)
