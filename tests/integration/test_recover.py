"""Recovery with neither controller nor database: the home of both is deleted first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.backup.restore.durable import Written
from controller.cli.main import run
from controller.store.local import LocalStore
from protocol.ids import make_id
from protocol.vault.chunk import Kind
from protocol.vault.epochs import link, name_of
from protocol.vault.keys import TenantKey, decode_tenant_key, encode_tenant_key, render_paper_key
from protocol.vault.pack import read_index
from tests.altered import another_id, flipped
from tests.integration.browse_world import browse_world, rows_of
from tests.integration.resealed import resealed
from tests.lacking import run_lacking

Capture = pytest.CaptureFixture[str]
NO_RSYNC = pytest.mark.skipif(shutil.which("rsync") is None, reason="not run: rsync is missing")


@dataclass(frozen=True)
class Left:
    """What a fire left: objects, the key, and the files as they were to compare with."""

    objects: Path
    key: Path
    files: Path
    stored_as: str
    points: list[str]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    top = tmp_path_factory.mktemp("recover")
    home = tmp_path_factory.mktemp("burnt")
    with browse_world(home) as world:
        points, files = world.points, world.files
    files.rename(top / "files")
    (home / "controller/objects").rename(top / "objects")
    (key,) = (home / "operator").rglob("tn_*.key")
    shutil.copy(key, top / "acme.key")
    shutil.rmtree(home)
    return Left(top / "objects", top / "acme.key", top / "files", str(files), points)


def recover(left: Left, tmp_path: Path, *argv: str, objects: Path | None = None) -> int:
    return run([
        "--home", str(tmp_path / "nothing"), "vault", "recover",
        "--objects", str(objects or left.objects), "--key", str(left.key), *argv,
    ])  # fmt: skip


def asked(capsys: Capture) -> list[dict[str, Any]]:
    return rows_of(capsys.readouterr().out)


def test_what_the_key_opens_is_listed(left: Left, tmp_path: Path, capsys: Capture) -> None:
    assert recover(left, tmp_path, "--output", "json") == 0
    rows = asked(capsys)
    assert [row["point"] for row in rows] == left.points[::-1]
    assert rows[0]["paths"] == [left.stored_as]
    assert rows[0]["files"] == 8


@NO_RSYNC
def test_a_machine_comes_back_as_it_was(left: Left, tmp_path: Path, capsys: Capture) -> None:
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "--output", "json") == 0, capsys.readouterr()
    (done,) = asked(capsys)
    assert (done["left"], done["failed"], done["damaged_packs"]) == (0, [], 0)
    back = to / left.stored_as.lstrip("/")
    kinds = "-aHAX" if os.geteuid() == 0 else "-rlptHAX"
    ended = subprocess.run(
        ["rsync", kinds, "-n", "--checksum", "--delete", "--itemize-changes",
         f"{left.files}/", f"{back}/"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert ended.stdout == b""
    assert (back / "sparse").stat().st_blocks * 512 < 1_000_000


def test_the_operators_installation_is_enough(left: Left, tmp_path: Path) -> None:
    """What agents alone are installed with is not there where the fire is over."""
    to = tmp_path / "back"
    ended = run_lacking(
        "controller", "from controller.cli.main import main; main()",
        "vault", "recover", "--objects", str(left.objects), "--key", str(left.key), "--to", str(to),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (to / left.stored_as.lstrip("/")).is_dir()


def test_the_newest_key_leads_to_those_before_it(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    older, newest = decode_tenant_key(left.key.read_bytes()), TenantKey(bytes(range(32)))
    (tenant,) = (folder for folder in objects.iterdir() if folder.name.startswith("tn_"))
    (tenant / "keys").mkdir(exist_ok=True)
    (tenant / "keys" / name_of(newest).hex()).write_bytes(link(newest, older))
    file = tmp_path / "newest.key"
    file.write_bytes(encode_tenant_key(newest))
    argv = ["vault", "recover", "--objects", str(objects), "--key", str(file), "-o", "json"]
    assert run(argv) == 0
    assert len(asked(capsys)) == 3


def test_a_part_of_an_older_point_comes_back_by_the_paper_key(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    paper = tmp_path / "paper.txt"
    paper.write_text(render_paper_key(decode_tenant_key(left.key.read_bytes())).lower() + "\n")
    to = tmp_path / "back"
    code = run([
        "vault", "recover", "--objects", str(left.objects), "--key", str(paper), "--to", str(to),
        left.points[0], f"{left.stored_as}/docs", f"{left.stored_as}/photos/cat.jpg",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr()
    assert sorted(path.name for path in to.iterdir()) == ["cat.jpg", "docs"]
    assert (to / "docs/old/notes.txt").read_text() == "some notes\n" * 100
    assert not (to / "docs/new.txt").exists()


def copied(left: Left, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left.objects, tmp_path / "objects"))


def packs_of(objects: Path, kind: Kind) -> list[Path]:
    files = [file for file in objects.rglob("packs/*/*") if file.is_file()]
    return [file for file in files if read_index(file.read_bytes())[0].kind is kind]


def test_a_pack_without_its_index_loses_nothing(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    for file in objects.rglob("packs/*/*"):
        file.write_bytes(file.read_bytes()[:-8] + b"nonsense")
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "-o", "json", objects=objects) == 0
    (done,) = asked(capsys)
    assert done["left"] == 0
    assert done["damaged_packs"] > 0
    cat = to / left.stored_as.lstrip("/") / "photos/cat.jpg"
    assert cat.read_bytes() == (left.files / "photos/cat.jpg").read_bytes()


def test_a_damaged_chunk_costs_the_files_in_it_and_they_are_named(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    largest = max(packs_of(objects, Kind.DATA), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    place = max(read_index(content), key=lambda one: one.length)
    content[place.offset + place.length // 2] ^= 1
    largest.write_bytes(content)
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "-o", "json", objects=objects) == 3
    (done,) = asked(capsys)
    assert [said.partition(":")[0] for said in done["failed"]] == [
        f"{left.stored_as}/photos/cat.jpg"
    ]
    assert largest.name in done["failed"][0]
    back = to / left.stored_as.lstrip("/")
    assert (back / "docs/new.txt").exists()
    assert not (back / "photos/cat.jpg").exists()


def test_the_tree_being_lost_is_said_and_nothing_is_made_up(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    for file in packs_of(objects, Kind.TREE):
        file.unlink()
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "-o", "json", objects=objects) == 3
    (done,) = asked(capsys)
    assert done["left"] == 1
    assert "is missing" in done["failed"][0]
    assert list(to.iterdir()) == []


@pytest.mark.parametrize("damage", ["flipped", "renamed"])
def test_a_record_that_was_tampered_with_is_left_out(
    left: Left, tmp_path: Path, capsys: Capture, damage: str
) -> None:
    objects = copied(left, tmp_path)
    (record,) = objects.rglob(f"points/*/{left.points[2]}")
    if damage == "flipped":
        content = bytearray(record.read_bytes())
        content[len(content) // 4] ^= 1
        record.write_bytes(content)
    else:
        record.rename(record.with_name(another_id(left.points[2])))
    assert recover(left, tmp_path, "--output", "json", objects=objects) == 3
    said = capsys.readouterr()
    assert [row["point"] for row in json.loads(said.out)] == left.points[1::-1]
    assert "is left out" in said.err


def test_what_cannot_be_is_refused_with_a_next_step(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(encode_tenant_key(TenantKey(bytes(32))))
    argv = ["vault", "recover", "--objects", str(left.objects), "--key", str(other)]
    assert run(argv) == 1
    assert "is it this tenant's?" in capsys.readouterr().err
    assert recover(left, tmp_path, objects=tmp_path) == 2
    assert "should hold TENANT/points" in capsys.readouterr().err
    assert recover(left, tmp_path, "--to", str(tmp_path / "x"), "/nowhere") == 1
    assert "is not in restore point" in capsys.readouterr().err
    assert recover(left, tmp_path, "--to", str(tmp_path / "x"), "--machine", "mc_none") == 1
    assert "there are: mc_" in capsys.readouterr().err


def test_several_paths_are_looked_for_before_anything_is_written(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    to = tmp_path / "back"
    docs = f"{left.stored_as}/docs"
    assert recover(left, tmp_path, "--to", str(to), docs, "/nowhere") == 1
    assert "/nowhere is not in restore point" in capsys.readouterr().err
    for paths in ([docs, docs], ["/", docs]):
        assert recover(left, tmp_path, "--to", str(to), *paths) == 2
        assert "recover it alone" in capsys.readouterr().err
    assert not to.exists()


def test_recovering_into_what_is_no_place_for_it_is_refused(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    assert recover(left, tmp_path, "--to", str(left.objects / "back")) == 2
    assert "name another --to" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert recover(left, tmp_path, "--to", str(tmp_path / "file")) == 2
    assert "name another directory" in capsys.readouterr().err


def test_what_is_recovered_is_on_the_disk_when_it_is_said_to_be(
    left: Left, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "back"
    seen: list[bool] = []

    def looked(self: Written) -> None:
        seen.append((to / Path(left.stored_as).name / "docs").is_dir())

    monkeypatch.setattr(Written, "make_durable", looked)
    assert recover(left, tmp_path, "--to", str(to), left.stored_as, "--owners", "number") == 0
    assert seen == [True], capsys.readouterr()


def test_a_clock_that_was_ahead_is_told_where_it_makes_the_newest_doubtful(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    begun = datetime.now(UTC) + timedelta(days=3650)
    ahead = make_id("rp", at_ms=int(begun.timestamp() * 1000), random=b"made anew ")
    (record,) = left.objects.rglob(f"points/*/{left.points[0]}")
    key = decode_tenant_key(left.key.read_bytes())
    resealed(record, key, objects, point=ahead, begun=begun)
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), objects=objects) == 3
    said = capsys.readouterr().err
    assert "was ahead when it made " + ahead in said
    by_id = tmp_path / "by-id"
    assert recover(left, tmp_path, "--to", str(by_id), left.points[2], objects=objects) == 0
    assert "was ahead" not in capsys.readouterr().err
    assert recover(left, tmp_path, "--to", str(tmp_path / "x"), objects=left.objects) == 0


def test_an_older_point_in_the_place_of_a_damaged_one_is_no_success(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    (record,) = objects.rglob(f"points/*/{left.points[2]}")
    record.write_bytes(flipped(record.read_bytes()))
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "-o", "json", objects=objects) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["point"] == left.points[1]
    assert "may be what was meant" in said.err
    argv = ("--to", str(tmp_path / "named"), left.points[1])
    assert recover(left, tmp_path, *argv, objects=objects) == 0


def test_a_whole_record_in_the_quarantine_stands_for_a_damaged_one(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    (record,) = objects.rglob(f"points/*/{left.points[2]}")
    whole = record.read_bytes()
    LocalStore.open(objects).quarantine(record.relative_to(objects).as_posix(), "looked damaged")
    assert not record.exists()
    record.write_bytes(flipped(whole))
    assert recover(left, tmp_path, "-o", "json", objects=objects) == 0
    said = capsys.readouterr()
    assert [row["point"] for row in json.loads(said.out)] == left.points[::-1]
    assert "is left out" not in said.err


def test_what_is_whole_in_a_pack_that_was_put_aside_is_recovered(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    store = LocalStore.open(objects)
    for file in [file for file in objects.rglob("packs/*/*") if file.is_file()]:
        store.quarantine(file.relative_to(objects).as_posix(), "looked damaged")
    to = tmp_path / "back"
    assert recover(left, tmp_path, "--to", str(to), "-o", "json", objects=objects) == 0
    (done,) = asked(capsys)
    assert (done["left"], done["damaged_packs"]) == (0, 0)


def test_restore_points_of_other_tenants_are_one_line_and_no_failure(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    other = "tn_" + "1" * 26
    (tenant,) = (folder for folder in objects.iterdir() if folder.name.startswith("tn_"))
    key, mine = decode_tenant_key(left.key.read_bytes()), TenantKey(bytes(range(32)))
    file = tmp_path / "theirs.key"
    file.write_bytes(encode_tenant_key(mine))
    for record in tenant.rglob("points/*/rp_*"):
        resealed(record, key, objects, tenant=other, seal_to=mine)
    assert recover(left, tmp_path, "-o", "json", objects=objects) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 3
    assert f"{other}: 3 restore points are sealed to another key" in said.err
    assert "is left out" not in said.err
    argv = ["vault", "recover", "--objects", str(objects), "--key", str(file), "-o", "json"]
    assert run(argv) == 0
    assert {row["tenant"] for row in asked(capsys)} == {other}


def test_what_is_no_file_and_what_is_far_too_long_stops_nothing(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    (record,) = objects.rglob(f"points/*/{left.points[0]}")
    os.mkfifo(record.with_name("rp_" + "0" * 26))
    with record.with_name("rp_" + "1" * 26).open("wb") as file:
        file.truncate(1 << 40)
    (pack, *_) = objects.rglob("packs/*/*")
    os.mkfifo(pack.with_name(pack.name[:2] + "0" * 62))
    with pack.with_name(pack.name[:2] + "1" * 62).open("wb") as file:
        file.truncate(1 << 40)
    to = tmp_path / "back"
    argv = ("--to", str(to), left.points[2], "-o", "json")
    assert recover(left, tmp_path, *argv, objects=objects) == 0
    said = capsys.readouterr()
    assert "it is longer than" in said.err
    assert json.loads(said.out)[0]["left"] == 0


def test_what_is_lost_is_named_by_its_path_in_the_restore_point(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    objects = copied(left, tmp_path)
    for file in packs_of(objects, Kind.DATA):
        file.unlink()
    to = tmp_path / "back"
    argv = ("--to", str(to), "latest", f"{left.stored_as}/photos", "-o", "json")
    assert recover(left, tmp_path, *argv, objects=objects) == 3
    (done,) = asked(capsys)
    assert {said.partition(":")[0] for said in done["failed"]} == {
        f"{left.stored_as}/photos/{name}" for name in ("cat.jpg", "dog.jpg", "hound.jpg")
    }
    # There is nothing that could be checked by it.
    assert "stead vault check" not in "".join(done["failed"])


def test_the_table_of_restore_points_names_their_paths(
    left: Left, tmp_path: Path, capsys: Capture
) -> None:
    assert recover(left, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.count(left.stored_as) == 3
    assert recover(left, tmp_path, "--to", str(tmp_path / "x"), "2001-01-01") == 1
    assert "`stead vault recover` without --to lists them" in capsys.readouterr().err
