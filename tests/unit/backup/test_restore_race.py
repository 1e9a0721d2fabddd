"""Somebody swaps the folders that are restored into for links, as fast as can be."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backup.beneath import Beneath
from tests.unit.backup.machine import Machine

_EXCHANGE = 2
"""RENAME_EXCHANGE of <linux/fs.h>."""
ROUNDS = 6


def exchange(one: bytes, other: bytes) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.renameat2(-100, one, -100, other, _EXCHANGE)


class Attacker:
    """Swaps `folder` and a link to `outside` without pause."""

    def __init__(self, folder: Path, outside: Path) -> None:
        self.link = folder.with_name("link-outside")
        self.link.symlink_to(outside)
        self._names = (bytes(folder), bytes(self.link))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._swap)
        self.swaps = 0

    def _swap(self) -> None:
        while not self._over.is_set():
            exchange(*self._names)
            self.swaps += 1

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kernel", ["openat2", "without"])
def test_nothing_is_written_outside_while_folders_turn_into_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, *, overwrite: bool
) -> None:
    if kernel == "without":
        long_way: Callable[[Beneath, bytes], int] = Beneath._step_by_step
        monkeypatch.setattr(
            Beneath, "open", lambda self, p: long_way(self, p) if p else os.dup(self.fd)
        )
    machine = Machine(tmp_path)
    chance = random.Random(11)
    for folder in range(40):
        (machine.files / "swapped" / f"d{folder}").mkdir(parents=True)
        for number in range(8):
            path = machine.files / "swapped" / f"d{folder}" / f"f{number}"
            path.write_bytes(chance.randbytes(600))
            path.chmod(0o4755)
    report = machine.back_up()
    outside = tmp_path / "outside"
    for folder in range(40):
        (outside / f"d{folder}").mkdir(parents=True)
        (outside / f"d{folder}" / "f0").write_bytes(b"theirs")
        (outside / f"d{folder}" / "f0").chmod(0o600)
    before = {path: path.lstat() for path in [outside, *outside.rglob("*")]}
    target = tmp_path / "target"
    (target / "files" / "swapped").mkdir(parents=True)
    refused = placed = 0
    with Attacker(target / "files" / "swapped", outside) as attacker:
        for _ in range(ROUNDS):
            _, done = machine.restore(report.root, target=target, overwrite=overwrite)
            refused += done.failed.count
            placed += done.files
    assert attacker.swaps > 50
    # Without both, the test has not raced.
    assert refused
    after = {path: path.lstat() for path in [outside, *outside.rglob("*")]}
    assert after.keys() == before.keys()
    for path, one in before.items():
        other = after[path]
        assert (one.st_mode, one.st_uid, one.st_ino) == (other.st_mode, other.st_uid, other.st_ino)
        assert one.st_mtime_ns == other.st_mtime_ns, path
        if path.name == "f0":
            assert path.read_bytes() == b"theirs"
    assert placed + refused >= 320
