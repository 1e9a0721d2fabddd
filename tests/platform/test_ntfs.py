"""Named streams of a real NTFS volume, through workers, over mutual TLS and back.

Nothing of ours judges: NTFS-3G opens the streams, and `open` compares them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.vault.point import decode_envelope, verify_point
from tests.faults.backup_world import World, body_of

NEEDED = ("mkntfs", "ntfs-3g", "mount", "umount")
ABSENT = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(ABSENT), reason=f"not run: {', '.join(ABSENT)} missing"),
    pytest.mark.skipif(os.geteuid() != 0, reason="not run: mounting needs root"),
]

HUGE = random.Random(1).randbytes(2_000_000)
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"
STREAMS = {
    "report.txt": {"Zone.Identifier": ZONE, "huge": HUGE, "empty": b""},
    "large.bin": {"grün": b"1" * 300},
    "folder": {"note": b"of a folder"},
    "folder/inside": {"x": HUGE[:100_000]},
}


@contextmanager
def ntfs(image: Path, folder: Path) -> Iterator[Path]:
    """A new volume, mounted with its streams."""
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mkntfs", "-F", "-Q", "-q", image], check=True, capture_output=True)
    mounted = subprocess.run(
        ["mount", "-t", "ntfs-3g", "-o", "loop,streams_interface=windows", image, folder],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"not run: NTFS cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def plant(top: Path) -> None:
    (top / "folder").mkdir()
    (top / "report.txt").write_bytes(b"small")
    (top / "large.bin").write_bytes(HUGE[::-1])
    (top / "folder" / "inside").write_bytes(b"2" * 3_000)
    (top / "plain").write_bytes(b"no stream")
    for name, streams in STREAMS.items():
        for stream, content in streams.items():
            Path(f"{top / name}:{stream}").write_bytes(content)


def streams_of(path: Path) -> dict[str, bytes]:
    listed = os.getxattr(path, "ntfs.streams.list")
    names = [name.decode() for name in listed.split(b"\0") if name]
    return {name: Path(f"{path}:{name}").read_bytes() for name in names}


def compare(one: Path, other: Path) -> None:
    for path in sorted(one.rglob("*")):
        restored = other / path.relative_to(one)
        assert restored.stat().st_mtime_ns == path.stat().st_mtime_ns, path
        if path.is_file():
            assert restored.read_bytes() == path.read_bytes(), path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("ntfs"))
    home = made.installation.home
    try:
        with ntfs(home / "image", made.files):
            plant(made.files)
            result = made.back_up()
            assert result is not None
            assert result["state"] == "succeeded", result
            yield made
    finally:
        made.kill_controller()


def test_a_volume_comes_back_with_its_streams(world: World, tmp_path: Path) -> None:
    with ntfs(tmp_path / "image", tmp_path / "target") as target:
        result = world.restore(world.points()[0].record, target)
        assert result.state == "succeeded", result.result
        assert json.loads(result.result)["warnings"] == []
        compare(world.files, target / "files")
        for name, streams in STREAMS.items():
            assert streams_of(target / "files" / name) == streams
        assert streams_of(target / "files" / "plain") == {}


def test_another_file_system_has_no_place_for_them(world: World, tmp_path: Path) -> None:
    result = world.restore(world.points()[0].record, tmp_path)
    assert result.state == "succeeded", result.result
    told = [one["reason"] for one in json.loads(result.result)["warnings"]]
    assert told == ["named streams of 4 restored: Linux has no place for it"]
    compare(world.files, tmp_path / "files")


def test_a_restore_in_place_writes_what_differs(world: World) -> None:
    inside = world.files / "folder" / "inside"
    was = inside.stat()
    Path(f"{inside}:x").write_bytes(b"another")
    Path(f"{inside}:more").write_bytes(b"1")
    os.utime(inside, ns=(was.st_mtime_ns, was.st_mtime_ns))
    result = world.restore_in_worker(world.points()[0].record, world.files.parent)
    assert result is not None
    assert result["state"] == "succeeded", result
    assert body_of(result)["files"] == 1
    assert streams_of(inside) == STREAMS["folder/inside"]
    assert inside.stat().st_mtime_ns == was.st_mtime_ns


def point_ids(world: World) -> list[str]:
    """The newest first."""
    return [verify_point(decode_envelope(one.record)).id for one in world.points()]


def machine_of(world: World) -> str:
    (listed,) = json.loads(world.installation.must("stead", "machine", "ls", "--output", "json"))
    return str(listed["name"])


def test_an_operator_sees_reads_compares_and_recovers_them(world: World, tmp_path: Path) -> None:
    must, name = world.installation.must, machine_of(world)
    listed = must("stead", "backup", "browse", name, "latest", str(world.files))
    assert "report.txt [Zone.Identifier 26 B, empty 0 B, huge 1.9 MiB]" in listed
    assert "folder/ [note 11 B]" in listed
    path = str(world.files / "report.txt")
    read = must("stead", "backup", "cat", name, "latest", path, "--stream", "Zone.Identifier")
    assert read == ZONE.decode()
    inside = world.files / "folder" / "inside"
    for file in ("report.txt", "folder/inside"):
        # Read again: small ones come to lie in other chunks than before.
        (world.files / file).touch()
    (world.files / "aaa").write_bytes(b"5" * 1_000)
    Path(f"{inside}:x").write_bytes(HUGE[1:100_001])
    result = world.back_up()
    assert result is not None
    assert result["state"] == "succeeded", result
    newest, oldest = point_ids(world)
    told = json.loads(must("stead", "backup", "diff", name, oldest, newest, "--output", "json"))
    found = {Path(one["path"]).name: one["what"] for one in told if one["what"]}
    assert found == {"report.txt": ["time"], "inside": ["time", "streams"]}
    recovered(world, oldest, tmp_path)


def recovered(world: World, point: str, tmp_path: Path) -> None:
    """From nothing but objects and key."""
    home = world.installation.home
    (key,) = (home / "operator").rglob("tn_*.key")
    with ntfs(tmp_path / "image", tmp_path / "target") as target:
        world.installation.must(
            "stead", "vault", "recover", "--objects", str(home / "controller/objects"),
            "--key", str(key), "--to", str(target), point,
        )  # fmt: skip
        (restored,) = target.rglob("report.txt")
        assert streams_of(restored) == STREAMS["report.txt"]
        assert streams_of(restored.parent / "folder") == STREAMS["folder"]


def test_a_name_with_a_colon_does_not_become_a_stream_of_another_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    (files / "folder").mkdir(parents=True)
    for folder in (files, files / "folder"):
        (folder / "a").write_bytes(b"1")
        (folder / "a:b").write_bytes(b"2")
    monkeypatch.setattr(world, "files", files)
    done = world.back_up()
    assert done is not None
    assert done["state"] == "succeeded", done
    with ntfs(tmp_path / "image", tmp_path / "target") as target:
        result = world.restore(world.points()[0].record, target)
        assert result.state == "partial", result
        failed = [one["path"] for one in json.loads(result.result)["failed"]]
        assert sorted(failed) == ["/files/a:b", "/files/folder/a:b"]
        for folder in (target / "files", target / "files" / "folder"):
            assert (folder / "a").read_bytes() == b"1"
            assert streams_of(folder / "a") == {}
