"""One installation with three restore points, for all tests of an operator's browsing.

The machine's agent is stopped once they are made: whatever is answered afterwards is
answered without it.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.cli.main import run
from demo.installation import ADDRESS, LINKED, Installation, free_ports
from tests.fakes.typed import TypedInstallation

LINES = "".join(f"line {number}\n" for number in range(2000))
HOSTILE = b"\x1b[31mred\n\xff"


@dataclass
class BrowseWorld:
    """`points` are the ids from the oldest to the newest."""

    installation: Installation
    files: Path
    machine: str = field(default_factory=socket.gethostname)
    points: list[str] = field(default_factory=list)

    def stead(self, *argv: str) -> int:
        """Run `stead` in this process; its exit code."""
        return run(["--home", str(self.installation.home), *argv])

    def back_up(self) -> None:
        out = self.installation.must(
            "stead", "backup", "run", "all", "--path", str(self.files), "--output", "json"
        )
        self.points.append(json.loads(out)[0]["point"])

    @contextmanager
    def changed(self) -> Iterator[None]:
        """The machine's files are others for a while."""
        report, fresh = self.files / "docs/report.txt", self.files / "docs/fresh-name"
        kept, stat = report.read_bytes(), report.stat()
        folder = report.parent.stat()
        report.write_text("new")
        fresh.touch()
        try:
            yield
        finally:
            fresh.unlink()
            report.write_bytes(kept)
            for path, seen in ((report, stat), (report.parent, folder)):
                os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def plant(files: Path) -> None:
    """The first state of the machine's files."""
    for name in ("docs/old", "photos", "deep/er/est"):
        (files / name).mkdir(parents=True)
    chance = random.Random(7)
    (files / "docs/report.txt").write_text(LINES)
    (files / "docs/old/notes.txt").write_text("some notes\n" * 100)
    (files / "photos/cat.jpg").write_bytes(chance.randbytes(3_000_000))
    (files / "photos/dog.jpg").write_bytes(chance.randbytes(70_000))
    os.link(files / "photos/dog.jpg", files / "photos/hound.jpg")
    (files / "deep/er/est/tiny").write_text("x")
    (files / "link").symlink_to("docs/report.txt")
    (files / os.fsdecode(HOSTILE)).write_text("hostile")
    with (files / "sparse").open("wb") as file:
        file.truncate(5_000_000)
        file.seek(2_000_000)
        file.write(b"island" * 1000)
    os.setxattr(files / "docs/report.txt", "user.mood", b"good\x00day")


@contextmanager
def browse_world(home: Path) -> Iterator[BrowseWorld]:
    """Make the world; its controller runs for as long as the block lasts."""
    installation = TypedInstallation(home)
    files = home / "files"
    plant(files)
    link, enroll = free_ports(2)
    installation.must(
        "stead", "controller", "init", "--name", ADDRESS,
        "--listen", f"{ADDRESS}:{link}", "--enroll-listen", f"{ADDRESS}:{enroll}",
    )  # fmt: skip
    with installation.service("stead", "controller", "serve") as controller:
        installation.until_listening(controller, link)
        installation.must("stead", "tenant", "add", "acme")
        token = installation.must("stead", "token", "new", "--tenant", "acme")
        installation.must("stead-agent", "enroll", "--token", "-", stdin=token)
        world = BrowseWorld(installation, files)
        with installation.service("stead-agent", "run") as agent:
            installation.until(agent, *LINKED, said='"linked": true')
            (listed,) = json.loads(installation.must(*LINKED))
            world.machine = listed["name"]
            world.back_up()
            (files / "docs/report.txt").write_text(LINES + "one more\n")
            (files / "docs/new.txt").write_text("new\n" * 100)
            world.back_up()
            (files / "docs/old/notes.txt").unlink()
            (files / "deep/er/est/tiny").chmod(0o400)
            # The same bytes with another time: kept in another place, and yet the same.
            os.utime(files / "photos/dog.jpg", ns=(5, 5))
            world.back_up()
        yield world


def rows_of(out: str) -> list[dict[str, Any]]:
    """What `--output json` printed."""
    return list(json.loads(out))
