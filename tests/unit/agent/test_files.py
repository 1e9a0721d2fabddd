"""Files on a machine: the way to them, writing them whole or not at all, and reading them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.files.receive import belongings, there, write_file
from agent.files.send import Sent, opened, send_file
from agent.files.way import spot_at
from protocol.action import PutFile
from protocol.errors import Code, SteadError
from protocol.ids import ParcelId, TaskId
from protocol.parcel import (
    OPERATOR,
    PIECE_BYTES,
    Trailer,
    open_piece,
    open_trailer,
    pieces_in,
    seal_piece,
    seal_trailer,
)
from tests.fakes.memory_parcels import MemoryParcels

KEY = bytes(range(32))
PARCEL = ParcelId("pc_00000000000000000000000001")
TASK = TaskId("ts_00000000000000000000000001")
OTHER_TASK = "ts_00000000000000000000000002"
SENDER = "mc_00000000000000000000000001"
NOWHERE = Path("/nonexistent")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def order_of(path: Path | bytes, content: bytes, **more: object) -> PutFile:
    action = PutFile(
        path=os.fsencode(path),
        parcel_id=PARCEL,
        size=len(content),
        content_hash=blake3(content).digest(),
    )
    return replace(action, **more)  # type: ignore[arg-type]


def parcels_of(content: bytes) -> MemoryParcels:
    found = MemoryParcels()
    for index in range(pieces_in(len(content))):
        plain = content[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]
        found.pieces[index] = seal_piece(KEY, PARCEL, OPERATOR, index, plain)
    trailer = Trailer(len(content), blake3(content).digest())
    found.pieces[len(found.pieces)] = seal_trailer(KEY, PARCEL, OPERATOR, trailer)
    return found


def put(action: PutFile, parcels: MemoryParcels, home: Path = NOWHERE) -> None:
    def ignore(_: int) -> None:
        pass

    with spot_at(action.path, home, make=action.make_directories) as spot:
        write_file(spot, action, KEY, parcels, TASK, wait=ignore, told=ignore)


def got(
    path: Path,
    parcels: MemoryParcels,
    *,
    max_bytes: int = 1 << 30,
    told: Callable[[int, int], None] = lambda *_: None,
) -> Sent:
    with (
        spot_at(os.fsencode(path), NOWHERE, follow=True) as spot,
        opened(spot, max_bytes) as fd,
    ):
        return send_file(
            spot,
            fd,
            KEY,
            PARCEL,
            SENDER,
            parcels,
            max_bytes=max_bytes,
            wait=lambda _: None,
            told=told,
        )


def content_in(parcels: MemoryParcels, sent: Sent) -> bytes:
    count = pieces_in(sent.trailer.size)
    assert open_trailer(KEY, PARCEL, SENDER, count, parcels.sent[count]) == sent.trailer
    plain = [open_piece(KEY, PARCEL, SENDER, i, parcels.sent[i]) for i in range(count)]
    return b"".join(plain)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_file_is_put_with_mode_and_nothing_beside_it(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    put(order_of(tmp_path / "a", content, mode=0o604, verify=True), parcels_of(content))
    assert (tmp_path / "a").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604
    assert names(tmp_path) == ["a"]


def test_a_path_of_any_bytes_is_put_and_got(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff \n-x"))
    put(order_of(path, b"abc"), parcels_of(b"abc"))
    parcels = MemoryParcels()
    assert content_in(parcels, got(path, parcels)) == b"abc"


def test_what_is_replaced_keeps_its_mode_unless_the_order_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)
    put(order_of(path, b"new"), parcels_of(b"new"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_group_are_set_and_special_bits_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(order_of(path, b"x", owner="12345", group="54321", mode=0o4755), parcels_of(b"x"))
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 54321, 0o4755)


def test_an_owner_that_nobody_knows_is_refused() -> None:
    for bad in ({"owner": "no-such-user-here"}, {"group": "4294967295"}, {"mode": 0o10000}):
        with pytest.raises(SteadError) as error:
            belongings(order_of(b"/x", b"", **bad), None)
        assert error.value.code is Code.INVALID


def test_a_run_after_a_kill_fetches_only_what_is_missing(tmp_path: Path) -> None:
    content = os.urandom(3 * PIECE_BYTES + 5)
    parcels = parcels_of(content)
    part = tmp_path / f".a.{TASK}.part"
    part.write_bytes(content[: 2 * PIECE_BYTES + 7])
    put(order_of(tmp_path / "a", content), parcels)
    assert sorted(parcels.calls) == [2, 3, 4]
    assert (tmp_path / "a").read_bytes() == content
    assert names(tmp_path) == ["a"]


def test_what_lies_beside_a_file_beyond_its_end_does_not_come_into_it(tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    (tmp_path / f".a.{TASK}.part").write_bytes(content + bytes(PIECE_BYTES))
    put(order_of(tmp_path / "a", content), parcels_of(content))
    assert (tmp_path / "a").read_bytes() == content


def test_a_part_that_is_not_what_was_written_is_fetched_again(tmp_path: Path) -> None:
    content = os.urandom(2 * PIECE_BYTES)
    (tmp_path / f".a.{TASK}.part").write_bytes(bytes(PIECE_BYTES))
    parcels = parcels_of(content)
    put(order_of(tmp_path / "a", content), parcels)
    assert sorted(parcels.calls) == [0, 1, 1, 2, 2]
    assert (tmp_path / "a").read_bytes() == content
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("way", ["link", "hard link", "pipe", "given away"])
def test_what_somebody_put_under_a_parts_name_is_not_written_to(tmp_path: Path, way: str) -> None:
    secret, part = tmp_path / "secret", tmp_path / f".a.{TASK}.part"
    secret.write_bytes(b"x")
    if way == "link":
        part.symlink_to(secret)
    elif way == "hard link":
        part.hardlink_to(secret)
    elif way == "pipe":
        os.mkfifo(part)
    else:
        # As a run leaves it that was killed when the file had its owner.
        part.write_bytes(b"theirs")
        if os.geteuid() == 0:
            os.chown(part, 12345, 12345)
    put(order_of(tmp_path / "a", b"abc"), parcels_of(b"abc"))
    assert secret.read_bytes() == b"x"
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert (tmp_path / "a").stat().st_uid == os.geteuid()
    assert names(tmp_path) == ["a", "secret"]


def test_what_a_run_that_took_too_long_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / f".a.{OTHER_TASK}.part"
    kept = tmp_path / ".a.backup.part"
    for path in (left, kept):
        path.write_bytes(b"x")
    put(order_of(tmp_path / "a", b"abc"), parcels_of(b"abc"))
    assert names(tmp_path) == [".a.backup.part", "a"]


def test_other_bytes_than_the_signed_ones_leave_what_was_there(tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 9)
    path = tmp_path / "a"
    path.write_bytes(b"old")
    edited, swapped, other, short = (parcels_of(content) for _ in range(4))
    edited.pieces[1] = edited.pieces[1][:-1] + bytes([edited.pieces[1][-1] ^ 1])
    swapped.pieces[0], swapped.pieces[1] = swapped.pieces[1], swapped.pieces[0]
    del short.pieces[2]
    # Sealed by the very key, as whoever else has it might.
    other.pieces[0] = seal_piece(KEY, PARCEL, OPERATOR, 0, bytes(PIECE_BYTES))
    for parcels in (edited, swapped, other, short):
        with pytest.raises(SteadError) as error:
            put(order_of(path, content), parcels)
        assert error.value.code in (Code.BAD_SIGNATURE, Code.NOT_FOUND)
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["a"]


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(tmp_path: Path) -> None:
    parcels = parcels_of(b"")
    with pytest.raises(SteadError) as error:
        put(order_of(tmp_path / "a", b"", size=1 << 60), parcels)
    assert error.value.code is Code.STORE_FULL
    assert (parcels.calls, names(tmp_path)) == ([], [])


def test_what_is_no_file_is_neither_replaced_nor_got(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "link", "pipe"):
        with pytest.raises(SteadError) as error:
            put(order_of(tmp_path / name, b"abc"), parcels_of(b"abc"))
        assert error.value.code is Code.INVALID
    for name in ("folder", "pipe"):
        with pytest.raises(SteadError) as error:
            got(tmp_path / name, MemoryParcels())
        assert error.value.code is Code.INVALID
    with pytest.raises(SteadError) as error:
        got(tmp_path / "none", MemoryParcels())
    assert error.value.code is Code.NOT_FOUND


def test_what_is_no_file_is_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To open a watchdog's device starts it, and the machine restarts a minute later.
    os.mkfifo(tmp_path / "pipe")
    opened_names = []
    real = os.open

    def noted(path: object, *rest: object, **more: object) -> int:
        opened_names.append(path)
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(SteadError):
        got(tmp_path / "pipe", MemoryParcels())
    assert b"pipe" not in opened_names
    assert os.fsencode(tmp_path.name) in opened_names


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a"
    parcels = parcels_of(b"abc")
    action = order_of(path, b"abc", no_overwrite=True)

    def comes(_: int) -> None:
        path.write_bytes(b"theirs")

    with spot_at(action.path, NOWHERE) as spot, pytest.raises(SteadError) as error:
        write_file(spot, action, KEY, parcels, TASK, wait=lambda _: None, told=comes)
    assert error.value.code is Code.ALREADY_EXISTS
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a"]


def test_links_that_others_can_set_are_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").write_bytes(b"old")
    for mode, is_good in ((0o755, True), (0o777, False), (0o1777, True), (0o775, False)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        (folder / "way").symlink_to("../inside")
        (folder / "file").symlink_to(inside / "a")
        folder.chmod(mode)
        if is_good:
            put(order_of(folder / "way" / "a", b"new"), parcels_of(b"new"))
            parcels = MemoryParcels()
            assert content_in(parcels, got(folder / "file", parcels)) == b"new"
            (inside / "a").write_bytes(b"old")
            continue
        with pytest.raises(SteadError) as error:
            put(order_of(folder / "way" / "a", b"new"), parcels_of(b"new"))
        assert error.value.code is Code.DENIED
        with pytest.raises(SteadError) as error:
            got(folder / "file", MemoryParcels())
        assert error.value.code is Code.DENIED
        assert (inside / "a").read_bytes() == b"old"


def test_a_directory_that_becomes_a_link_leads_nobody_elsewhere(tmp_path: Path) -> None:
    outside, open_to_all = tmp_path / "outside", tmp_path / "open"
    outside.mkdir()
    (open_to_all / "way").mkdir(parents=True)
    open_to_all.chmod(0o777)
    (open_to_all / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        way, aside, link = (open_to_all / name for name in ("way", "aside", "link"))
        while not stop.is_set():
            way.rename(aside)
            link.rename(way)
            way.rename(link)
            aside.rename(way)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            with suppress(SteadError):
                put(order_of(open_to_all / "way" / "a", b"abc"), parcels_of(b"abc"))
            assert names(outside) == []
    finally:
        stop.set()
        swapping.join()
    put(order_of(open_to_all / "way" / "a", b"abc"), parcels_of(b"abc"))
    assert names(open_to_all / "way") == ["a"]


def test_links_in_a_ring_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(SteadError), spot_at(os.fsencode(tmp_path / "a" / "x"), NOWHERE):
        pass


def test_a_link_may_lead_upwards(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "up").symlink_to("../../other/x/..")
    (tmp_path / "other" / "x").mkdir(parents=True)
    put(order_of(tmp_path / "one" / "two" / "up" / "a", b"abc"), parcels_of(b"abc"))
    assert (tmp_path / "other" / "a").read_bytes() == b"abc"


@pytest.mark.parametrize("path", ["etc/x", "/etc/", "/etc/..", "/a/../etc/x", "/a\0b", ""])
def test_paths_that_name_no_file_are_refused(path: str) -> None:
    with pytest.raises(SteadError) as error, spot_at(path.encode(), NOWHERE):
        pass
    assert error.value.code is Code.INVALID


def test_the_agents_own_is_out_of_reach_by_any_way(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "below").mkdir(parents=True)
    (home / "machine.key").write_bytes(b"secret")
    (tmp_path / "way").symlink_to(home)
    for path in (home / "machine.key", home / "below" / "x", tmp_path / "way" / "machine.key"):
        with pytest.raises(SteadError) as error, spot_at(os.fsencode(path), home, follow=True):
            pass
        assert error.value.code is Code.DENIED
    with spot_at(os.fsencode(tmp_path / "other"), home) as spot:
        assert there(spot) is None


def test_missing_directories_are_made_only_when_asked(tmp_path: Path) -> None:
    action = order_of(tmp_path / "x" / "y" / "a", b"abc")
    with pytest.raises(SteadError) as error:
        put(action, parcels_of(b"abc"))
    assert error.value.code is Code.NOT_FOUND
    put(replace(action, make_directories=True), parcels_of(b"abc"))
    assert (tmp_path / "x" / "y" / "a").read_bytes() == b"abc"


def test_who_gets_is_not_told_how_to_put(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path / "none" / "x")
    with pytest.raises(SteadError, match="add --make-directories"), spot_at(missing, NOWHERE):
        pass
    with pytest.raises(SteadError) as error, spot_at(missing, NOWHERE, follow=True):
        pass
    assert str(error.value).endswith("there is no directory none")


def test_only_pieces_that_are_not_held_are_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(3 * PIECE_BYTES))
    parcels = MemoryParcels()
    got(path, parcels)
    assert sorted(parcels.calls) == [0, 1, 2, 3]
    del parcels.sent[2]
    with path.open("r+b") as file:
        file.write(b"changed")
    parcels.calls.clear()
    assert content_in(parcels, got(path, parcels)) == path.read_bytes()
    assert sorted(parcels.calls) == [0, 2, 3]


def test_a_file_that_is_too_large_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    parcels = MemoryParcels()
    with pytest.raises(SteadError) as error:
        got(path, parcels, max_bytes=4)
    assert (error.value.code, parcels.calls) == (Code.LIMIT, [])
    assert got(path, parcels, max_bytes=5).trailer.size == 5


def test_a_file_that_the_kernel_writes_has_no_size_and_is_got() -> None:
    parcels = MemoryParcels()
    sent = got(Path("/proc/self/status"), parcels)
    assert b"VmRSS" in content_in(parcels, sent)


def test_a_file_that_grows_is_got_as_far_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(PIECE_BYTES + 3))
    parcels = MemoryParcels()

    def grow(_done: int, _size: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    sent = got(path, parcels, told=grow)
    assert sent.changed
    assert content_in(parcels, sent) == bytes(PIECE_BYTES + 3)
