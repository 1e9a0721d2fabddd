"""What a machine that is being encrypted shows, and what ordinary days do not."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.backup.scan import signs
from agent.backup.scan.signs import sample_of
from controller.vault.alarm import judge
from protocol.vault.point import Signs, Totals
from tests.unit.backup.machine import Machine

COUNT = 150
WORDS = [f"word{number * 7919 % 10_007}" for number in range(3000)]
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF"


def prose(chance: random.Random, size: int = 6_000) -> bytes:
    return " ".join(chance.choices(WORDS, k=size // 6)).encode()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Documents in folders, some pictures, an encrypted container, and logs."""
    made = Machine(tmp_path)
    chance = random.Random(4)
    for number in range(COUNT):
        folder = made.files / f"docs/{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"report{number:03}.txt").write_bytes(prose(chance))
    for number in range(60):
        (made.files / f"picture{number:02}.jpg").write_bytes(JPEG + chance.randbytes(20_000))
    (made.files / "log").mkdir()
    (made.files / "log/syslog").write_bytes(prose(chance))
    for number in range(1, 6):
        packed = gzip.compress(prose(chance))
        (made.files / f"log/syslog.{number}.gz").write_bytes(packed)
    return made


def documents(machine: Machine) -> list[Path]:
    return sorted((machine.files / "docs").rglob("*.txt"))


def totals(machine: Machine) -> Totals:
    found = machine.vault.points[-1][0].totals
    assert isinstance(found, Totals)
    return found


def judged(machine: Machine, happen: Callable[[Path], None]) -> tuple[tuple[str, ...], Signs]:
    """Back up, let something happen, back up again, and judge.

    Below a top of its own: where nodes of the tree end depends on the paths, and a new name
    in one node does not count as that of a file in another.
    """
    top = bytes(machine.home)
    machine.back_up(b"/files", top=top)
    before = totals(machine)
    assert before.signs is msgspec.UNSET, "there was nothing to compare with"
    happen(machine.files)
    machine.back_up(b"/files", top=top)
    after = totals(machine)
    assert isinstance(after.signs, Signs)
    return judge(after, [before]), after.signs


def encrypted(content: bytes) -> bytes:
    return random.Random(content[:64]).randbytes(len(content) + 32)


def test_encryption_in_place_is_seen(machine: Machine) -> None:
    def happen(_: Path) -> None:
        for path in documents(machine):
            path.write_bytes(encrypted(path.read_bytes()))

    reasons, after = judged(machine, happen)
    assert f"{COUNT} of {COUNT} changed files look encrypted" in " ".join(reasons)
    assert (after.appeared, after.vanished) == (0, 0)


def test_encryption_of_a_tenth_among_other_changes_is_seen(machine: Machine) -> None:
    def happen(_: Path) -> None:
        for number, path in enumerate(documents(machine)):
            content = path.read_bytes()
            path.write_bytes(encrypted(content) if number % 3 == 0 else content + b"more")

    reasons, after = judged(machine, happen)
    assert after.encrypted == COUNT / 3
    assert "look encrypted" in " ".join(reasons)


@pytest.mark.parametrize("anew", [False, True], ids=["renamed", "written anew"])
def test_encryption_with_another_name_is_seen(machine: Machine, anew: bool) -> None:
    def happen(_: Path) -> None:
        for path in documents(machine):
            content = encrypted(path.read_bytes())
            locked = path.with_name(path.name + ".locked")
            if anew:
                locked.write_bytes(content)
                path.unlink()
            else:
                path.write_bytes(content)
                path.rename(locked)

    reasons, after = judged(machine, happen)
    said = " ".join(reasons)
    assert "changed files look encrypted" in said
    assert "got the same suffix" in said
    assert after.vanished == after.appeared == COUNT
    # A name just behind what one leaf of the tree holds is not found by its old one.
    assert COUNT - 3 <= after.renamed <= COUNT


def test_a_suffix_for_all_is_seen_though_nothing_looks_encrypted(machine: Machine) -> None:
    def happen(_: Path) -> None:
        for path in documents(machine):
            path.rename(path.with_name(path.name + ".locked"))

    reasons, after = judged(machine, happen)
    assert len(reasons) == 1
    assert "of 216 files got the same suffix" in reasons[0]
    assert after.encrypted == 0


def test_the_suffix_of_a_compressor_hides_no_encryption(machine: Machine) -> None:
    def happen(_: Path) -> None:
        for path in documents(machine):
            path.with_name(path.name + ".gz").write_bytes(encrypted(path.read_bytes()))
            path.unlink()

    reasons, after = judged(machine, happen)
    # A node ends between the old name of one of them and its new one.
    assert (after.encrypted, after.changed, after.appeared) == (COUNT - 1, COUNT - 1, COUNT)
    assert f"{COUNT - 1} of {COUNT - 1} changed files look encrypted" in " ".join(reasons)


def test_deleting_and_writing_one_archive_is_seen(machine: Machine) -> None:
    def happen(files: Path) -> None:
        for path in documents(machine)[:100]:
            path.unlink()
        (files / "README.enc").write_bytes(random.Random(9).randbytes(9_000_000))

    reasons, after = judged(machine, happen)
    assert after.opaque_bytes == 9_000_000
    assert "100 of 216 files vanished, 1 appeared" in " ".join(reasons)


def upgrade(files: Path) -> None:
    """A distribution's: most files are other ones, packed documentation among them."""
    chance = random.Random(5)
    for number, path in enumerate(sorted((files / "docs").rglob("*.txt"))):
        if number % 3 == 0:
            path.write_bytes(b"\x7fELF" + chance.randbytes(6_000))
        elif number % 3 == 1:
            path.write_bytes(gzip.compress(prose(chance)))
        else:
            path.rename(path.with_suffix(".1"))


def rotation(files: Path) -> None:
    log = files / "log"
    for number in range(5, 0, -1):
        (log / f"syslog.{number}.gz").rename(log / f"syslog.{number + 1}.gz")
    (log / "syslog.1.gz").write_bytes(gzip.compress((log / "syslog").read_bytes()))
    (log / "syslog").write_bytes(b"a new day\n")


def many_rotations(files: Path) -> None:
    """Of a hundred services on one night: each log gets the suffix, and is there again."""
    for path in sorted((files / "docs").rglob("*.txt"))[:100]:
        path.rename(path.with_name(path.name + ".1"))
        path.write_bytes(b"a new day\n")


def compression(files: Path) -> None:
    """Of what was rotated a week ago, under names with the date: no name is there again."""
    for path in sorted((files / "docs").rglob("*.txt"))[:100]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def pictures(files: Path) -> None:
    chance = random.Random(6)
    (files / "new").mkdir()
    for number in range(100):
        (files / f"new/img{number:03}.jpg").write_bytes(JPEG + chance.randbytes(120_000))


def deletion(files: Path) -> None:
    for folder in "012":
        shutil.rmtree(files / "docs" / folder)


def move(files: Path) -> None:
    (files / "docs").rename(files / "documents")


def rights(files: Path) -> None:
    for path in files.rglob("*"):
        path.chmod(0o750)


def edits(files: Path) -> None:
    for path in (files / "docs").rglob("*.txt"):
        path.write_bytes(path.read_bytes() + b"one more line\n")


@pytest.mark.parametrize(
    "happen",
    [upgrade, rotation, many_rotations, compression, pictures, deletion, move, rights, edits],
)
def test_an_ordinary_day_is_no_alarm(machine: Machine, happen: Callable[[Path], None]) -> None:
    reasons, after = judged(machine, happen)
    assert reasons == ()
    assert after.encrypted == 0


def test_packing_a_repository_is_no_alarm(machine: Machine) -> None:
    chance = random.Random(8)
    objects = machine.files / "repository/.git/objects"
    loose = [objects / f"{number % 20:02x}/{number:038x}" for number in range(400)]
    for path in loose:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.compress(chance.randbytes(25_000)))

    def happen(_: Path) -> None:
        packed = b"PACK" + b"".join(path.read_bytes() for path in loose)
        for path in loose[:300]:
            path.unlink()
        (objects / "pack").mkdir()
        (objects / "pack/pack-1.pack").write_bytes(packed)

    reasons, after = judged(machine, happen)
    assert after.vanished == 300
    assert reasons == ()


def test_files_that_were_encrypted_before_are_no_alarm(machine: Machine) -> None:
    """An encrypted folder that is synchronised changes from noise into noise."""
    chance = random.Random(8)
    (machine.files / "safe").mkdir()
    for number in range(80):
        (machine.files / f"safe/{number:03}").write_bytes(chance.randbytes(90_000))

    def happen(files: Path) -> None:
        for path in (files / "safe").iterdir():
            path.write_bytes(chance.randbytes(90_000))

    reasons, after = judged(machine, happen)
    assert after.changed == 80
    # A few lie in one chunk with prose, so that it is not known what they were.
    assert after.encrypted < 10
    assert not any("changed files" in one for one in reasons)


def test_most_files_gone_is_an_alarm_as_before(machine: Machine) -> None:
    def happen(files: Path) -> None:
        shutil.rmtree(files / "docs")

    reasons, after = judged(machine, happen)
    assert reasons == (f"{COUNT} of 216 files are gone",)
    assert after.vanished == COUNT


def test_many_changed_files_are_looked_at_by_sample(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "WHOLE", 40)
    looked: list[signs.Sample] = []
    real = signs.looks_encrypted

    def look(one: signs.Sample) -> bool:
        looked.append(one)
        return real(one)

    monkeypatch.setattr(signs, "looks_encrypted", look)

    def happen(_: Path) -> None:
        for path in documents(machine):
            path.write_bytes(encrypted(path.read_bytes()))

    _, after = judged(machine, happen)
    assert len(looked) == 40 + (COUNT // signs.EVERY - 40 // signs.EVERY)
    assert after.encrypted == after.changed == COUNT


def test_a_first_backup_measures_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> bool:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(signs, "looks_encrypted", refuse)
    machine.back_up()
    assert "signs" not in msgspec.to_builtins(totals(machine))


def test_what_dense_content_is_by_itself_looks_encrypted_to_nobody() -> None:
    noise = os.urandom(9000)
    assert signs.looks_encrypted(sample_of(noise))
    assert signs.looks_encrypted(sample_of(b"text " * 200 + noise))
    for content in (
        JPEG + noise,
        gzip.compress(noise),
        zlib.compress(noise),
        b"\0\0\0\x18ftypisom" + noise,
        b"a name".ljust(257, b"\0") + b"ustar" + noise,
        b"text " * 2000,
        b"",
        noise[:100],
    ):
        assert not signs.looks_encrypted(sample_of(content))
