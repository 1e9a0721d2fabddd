"""A small ext4 file system in a file, which can lose its power.

The power cut is ext4's own shutdown call on a loop-mounted image: what was not
fsynced is gone after the next mount.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSH = struct.pack("I", 2)
_WITH_JOURNAL = struct.pack("I", 1)


def need_disks() -> None:
    """Say "not run" where file systems cannot be made and mounted."""
    if os.geteuid() != 0:
        pytest.skip("not run: mounting needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("not run: mkfs.ext4 is not installed")


class Disk:
    """Mounted from the start at `disk` in `folder`; of `size`, or a copy of another's image."""

    def __init__(self, folder: Path, size: str = "", like: Path | None = None) -> None:
        self.image = folder / "disk.img"
        self.mounted = folder / "disk"
        self.mounted.mkdir(parents=True)
        if like is not None:
            run("cp", "--sparse=always", str(like), str(self.image))
        else:
            run("truncate", "-s", size, str(self.image))
            # Blocks as large disks have them: SQLite maps a file whose pages it makes sure of
            # by one byte each, so on smaller blocks a full disk ends the process by SIGBUS.
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", str(self.image))
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.mounted))

    def unmount(self, *how: str) -> None:
        run("umount", *how, str(self.mounted))

    def cut(self, *, keeps_names: bool = False) -> None:
        """Lose everything that is not on the disk; whoever still has files open gets EIO.

        With `keeps_names` it happens just after names and lengths were written down, which is
        every five seconds and long before content is.
        """
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITH_JOURNAL if keeps_names else _WITHOUT_FLUSH)
        finally:
            os.close(descriptor)

    def remount(self) -> None:
        """What a machine does when its power comes back."""
        self.unmount()
        # A new file, so that it is mounted anew also while somebody's private view of the
        # system still holds on to the file system that was cut off.
        after = self.image.with_suffix(".after")
        run("cp", "--sparse=always", str(self.image), str(after))
        after.replace(self.image)
        self.mount()

    def leave(self, free_bytes: int) -> Path:
        """Fill it up but for so many bytes; the file that takes the room."""
        ballast = self.mounted / "ballast"
        found = os.statvfs(self.mounted)
        length = found.f_bavail * found.f_frsize - free_bytes
        with ballast.open("xb") as file:
            while length > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, length)
                    break
                except OSError as error:
                    # Where the file lies has to be written down as well.
                    if error.errno != errno.ENOSPC:
                        raise
                    length -= found.f_frsize
        return ballast


def run(*argv: str) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
