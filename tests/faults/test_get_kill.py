"""`stead file get` is killed at each of its writes that count; the next run goes on."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from protocol.parcel import PIECE_BYTES
from tests.integration import test_cli
from tests.integration.place import STEAD, WAIT_S, Place

place = test_cli.place
machine = test_cli.machine

PIECES = 4
NOTED = 3
"""From this fsync on the job is noted; then come the content, its name, and a note of that."""
FSYNCS = 6

strace = pytest.mark.skipif(shutil.which("strace") is None, reason="not run: needs strace")


def source_of(place: Place, name: str) -> tuple[Path, bytes]:
    content = os.urandom(PIECES * PIECE_BYTES + 77)
    path = place.directory / name
    path.write_bytes(content)
    return path, content


def gets(place: Place) -> list[str]:
    """The jobs that got a file."""
    return [job["job"] for job in place.rows("job", "ls") if job["action"] == "get_file"]


def assert_nothing_is_left(place: Place, folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["back"]
    assert list((place.directory / "home" / "operator" / "gets").iterdir()) == []
    kept = place.directory / "home" / "controller" / "objects" / "parcels"
    assert [path for path in kept.rglob("*") if path.is_file()] == []


@strace
@pytest.mark.parametrize(
    "when",
    [
        number if number in (1, NOTED, FSYNCS - 1) else pytest.param(number, marks=pytest.mark.full)
        for number in range(1, FSYNCS + 1)
    ],
)
def test_a_get_killed_at_any_fsync_is_gone_on_with(place: Place, machine: str, when: int) -> None:
    source, content = source_of(place, f"source-{when}")
    folder = place.directory / f"killed-{when}"
    folder.mkdir()
    words = ("file", "get", machine, str(source), str(folder / "back"))
    home = ("--home", str(place.directory / "home"))
    kill = ("strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e")
    earlier = gets(place)
    done = subprocess.run(
        [*kill, f"inject=fsync:signal=KILL:when={when}", *STEAD, *home, *words],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    before = gets(place)
    for job in set(before) - set(earlier):
        place.stead("job", "watch", job)
    # Whoever read it anew would get this.
    source.write_bytes(b"changed")
    again = place.stead(*words, *(("--overwrite",) if (folder / "back").exists() else ()))
    assert again.returncode == 0, again.stderr
    is_kept = when >= NOTED
    assert (b"Going on" in again.stderr) == is_kept
    assert (folder / "back").read_bytes() == (content if is_kept else b"changed")
    assert len(gets(place)) == len(before) + (not is_kept)
    assert_nothing_is_left(place, folder)


@strace
def test_a_get_killed_with_its_file_in_place_is_over(place: Place, machine: str) -> None:
    source, content = source_of(place, "two-names")
    folder = place.directory / "two-names-there"
    folder.mkdir()
    words = ("file", "get", machine, str(source), str(folder / "back"))
    kill = ("strace", "-f", "-o", "/dev/null", "-e", "trace=unlink,unlinkat", "-e")
    done = subprocess.run(
        [
            *kill,
            "inject=unlink,unlinkat:signal=KILL",
            *STEAD,
            "--home",
            str(place.directory / "home"),
            *words,
        ],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    # The other name was to go.
    assert (folder / "back").stat().st_nlink == 2
    again = place.stead(*words)
    assert again.returncode == 0, again.stderr
    assert (folder / "back").read_bytes() == content
    assert_nothing_is_left(place, folder)


def test_what_came_is_not_fetched_again(place: Place, machine: str) -> None:
    source, content = source_of(place, "source")
    folder = place.directory / "full"
    folder.mkdir()
    words = ("file", "get", machine, str(source), str(folder / "back"))
    earlier = gets(place)
    limit = (2 * PIECE_BYTES + PIECE_BYTES // 2, resource.RLIM_INFINITY)
    done = subprocess.run(
        [*STEAD, "--home", str(place.directory / "home"), *words],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == 1, done.stderr
    assert b"File too large" in done.stderr
    assert b"The same command goes on" in done.stderr
    kept = place.directory / "home" / "controller" / "objects" / "parcels"
    begun = {f".{index:07d}." for index in range(2)}
    for path in list(kept.rglob("*")):
        # Whoever began anew would ask for them.
        if any(number in path.name for number in begun):
            path.unlink()
            begun -= {number for number in begun if number in path.name}
    assert not begun
    again = place.stead(*words)
    assert again.returncode == 0, again.stderr
    assert (folder / "back").read_bytes() == content
    assert len(gets(place)) == len(earlier) + 1
    assert_nothing_is_left(place, folder)


@strace
def test_a_part_that_is_not_what_came_is_fetched_anew(place: Place, machine: str) -> None:
    source, content = source_of(place, "spoilt")
    folder = place.directory / "spoilt-there"
    folder.mkdir()
    words = ("file", "get", machine, str(source), str(folder / "back"))
    # As if somebody else had just made that file.
    taken = ("strace", "-f", "-o", "/dev/null", "-e", "inject=link,linkat:error=EEXIST")
    done = subprocess.run(
        [*taken, *STEAD, "--home", str(place.directory / "home"), *words],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert b"--overwrite" in done.stderr
    (part,) = (path for path in folder.iterdir() if path.name.endswith(".part"))
    assert part.read_bytes() == content
    with part.open("r+b") as file:
        file.write(b"spoilt")
    again = place.stead(*words)
    assert again.returncode == 0, again.stderr
    assert (folder / "back").read_bytes() == content
    assert_nothing_is_left(place, folder)
