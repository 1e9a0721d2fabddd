"""What lies elsewhere stays when extras are removed: behind links, mounts and races."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.backup.restore.extra import DEEPEST
from agent.backup.run import EVERYTHING
from tests.unit.backup.machine import Machine
from tests.unit.backup.test_extra import bounds_of, machine, names_below
from tests.unit.backup.test_restore_race import Attacker

__all__ = ["machine"]


@contextmanager
def mounted(source: Path, place: Path) -> Iterator[None]:
    done = subprocess.run(["mount", "--bind", source, place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"not run: this place does not let mount: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: mounting needs root")
def test_nothing_goes_in_or_behind_a_mount_even_of_the_same_file_system(machine: Machine) -> None:
    (machine.files / "mounted/below").mkdir(parents=True)
    report = machine.back_up(rules=EVERYTHING)
    other = machine.home / "other"
    (other / "below").mkdir(parents=True)
    (other / "theirs").write_bytes(b"theirs")
    (other / "below/theirs").write_bytes(b"theirs")
    (machine.files / "new/place").mkdir(parents=True)
    bounds = bounds_of(machine, EVERYTHING)
    with (
        mounted(other, machine.files / "mounted"),
        mounted(other, machine.files / "new/place"),
    ):
        machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
        assert (machine.files / "new/place/theirs").exists()
    assert (other / "theirs").read_bytes() == b"theirs"
    assert (other / "below/theirs").read_bytes() == b"theirs"
    assert machine.removals.count == 0
    reasons = {one.path: one.reason for one in machine.removals.kept.kept}
    assert reasons == dict.fromkeys(
        (b"files/mounted", b"files/new/place"), "something else is mounted there"
    )


def test_a_planted_link_leads_nowhere(machine: Machine) -> None:
    report = machine.back_up(rules=EVERYTHING)
    outside = machine.home / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below/theirs").write_bytes(b"theirs")
    (outside / "theirs").write_bytes(b"theirs")
    target = machine.home / "target"
    target.mkdir()
    bounds = bounds_of(machine, EVERYTHING)
    restore = machine.restoring(report.root, target, overwrite=True, bounds=bounds)
    remove = restore._remove_extras

    def plant_and_remove(*, act: bool) -> None:
        for name in ("full", "sub"):
            shutil.rmtree(target / "files" / name)
            (target / "files" / name).symlink_to(outside)
        (target / "files/new").symlink_to(outside)
        remove(act=act)

    restore._remove_extras = plant_and_remove  # type: ignore[method-assign]
    restore.run()
    assert names_below(outside) == {"below", "below/theirs", "theirs"}
    assert restore.removals.paths == [b"files/new"]


def test_what_lies_too_deep_stays(machine: Machine) -> None:
    report = machine.back_up(rules=EVERYTHING)
    place = machine.files / "full"
    here = os.open(place, os.O_RDONLY)
    for _ in range(3 * DEEPEST):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    bounds = bounds_of(machine, EVERYTHING)
    machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
    assert machine.removals.count == 0
    assert [one.reason for one in machine.removals.kept.kept] == ["lies too deep"]


def planted_outside(tmp_path: Path) -> tuple[Path, set[str]]:
    outside = tmp_path / "outside"
    for number in range(60):
        (outside / f"d{number}").mkdir(parents=True)
        (outside / f"d{number}/theirs").write_bytes(b"theirs")
        (outside / f"x{number}").mkdir()
    return outside, names_below(outside)


def test_nothing_outside_goes_while_a_folder_turns_into_a_link(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    swapped = machine.files / "swapped"
    for number in range(60):
        (swapped / f"d{number}").mkdir(parents=True)
    report = machine.back_up(rules=EVERYTHING)
    outside, before = planted_outside(tmp_path)
    folder = os.open(swapped, os.O_RDONLY)
    removed = held = 0
    with Attacker(swapped, outside) as attacker:
        bounds = bounds_of(machine, EVERYTHING, (bytes(attacker.link),))
        while not (removed and held and attacker.swaps > 200):
            for number in range(60):
                with suppress(FileExistsError):
                    os.mkdir(f"x{number}", dir_fd=folder)
                with suppress(FileExistsError):
                    os.mkdir(f"d{number}/new", dir_fd=folder)
            machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
            removed += machine.removals.count
            held += machine.removals.kept.count > 1
            assert names_below(outside) == before
    os.close(folder)


def test_nothing_outside_goes_while_an_extra_folder_turns_into_a_link(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    report = machine.back_up(rules=EVERYTHING)
    outside, before = planted_outside(tmp_path)
    bounds = bounds_of(machine, EVERYTHING)
    removed = swaps = 0
    for _ in range(20):
        for number in range(30):
            (machine.files / "new" / f"d{number}/theirs").mkdir(parents=True)
        with Attacker(machine.files / "new", outside) as attacker:
            while attacker.swaps < 20 and os.path.lexists(attacker.link):
                pass
            machine.restore(report.root, target=machine.home, overwrite=True, bounds=bounds)
        swaps += attacker.swaps
        removed += machine.removals.count
        for name in ("new", "link-outside"):
            place = machine.files / name
            if place.is_symlink():
                place.unlink()
            elif place.exists():
                shutil.rmtree(place)
        assert names_below(outside) == before
    assert swaps > 100
    assert removed
