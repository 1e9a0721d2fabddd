"""Logs: chosen by time, through rotation, and never more than fits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.actions.logs import FullError, Shown
from agent.files.reach import open_file
from agent.host.process import Finished, run
from agent.host.spool import LIMIT_BYTES
from agent.logs.files import LINE_BYTES, Follower, files_of, read_log
from agent.logs.journal import Backwards, journalctl
from agent.logs.linux import Journal
from agent.logs.span import Span, last
from agent.logs.stamps import time_of
from protocol.errors import Code, SteadError

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))
ALL = Span()
NOWHERE = Path("/nonexistent")


def reach(path: Path, home: Path = NOWHERE) -> int:
    return open_file(path, home)


@pytest.mark.parametrize(
    ("line", "at"),
    [
        (b"2026-05-04T10:00:00Z up", NOON - timedelta(hours=2)),
        (b"2026-05-04T10:00:00.123456+02:00 web x", NOON - timedelta(hours=4)),
        (b"2026-05-04 10:00:00,123 INFO x", NOON - timedelta(hours=4)),
        (b"[2026-05-04 10:00:00] x", NOON - timedelta(hours=4)),
        (b"2026-05-04 10:00:00 -0330 x", NOON + timedelta(hours=1, minutes=30)),
        (b"May  4 10:00:00 web cron[1]: x", NOON - timedelta(hours=4)),
        (b"<13>May  4 10:00:00 web x", NOON - timedelta(hours=4)),
        (b"May  5 10:00:00 web x", NOON + timedelta(hours=20)),
        (b"May 15 10:00:00 web x", datetime(2025, 5, 15, 8, tzinfo=UTC)),
        (b'::1 - - [04/May/2026:10:00:00 +0000] "GET /"', NOON - timedelta(hours=2)),
        (b"2026-12-31T23:59:60Z leap", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"2026-02-31T10:00:00Z", None),
        (b"Foo  4 10:00:00 x", None),
        (b"    at module.function(file.py:3)", None),
        (b"\xff\x00", None),
        (b"", None),
    ],
)
def test_the_time_that_a_line_begins_with_is_read(line: bytes, at: datetime | None) -> None:
    assert time_of(line, zone=EAST, written_by=NOON) == at


@given(st.binary(max_size=200))
def test_any_line_has_a_time_or_none(line: bytes) -> None:
    at = time_of(line, zone=EAST, written_by=NOON)
    assert at is None or at.tzinfo is UTC


@given(st.lists(st.binary(max_size=5), max_size=20), st.integers(1, 8), st.integers(0, 30))
def test_the_last_lines_are_a_tail_that_is_as_long_as_both_bounds_allow(
    lines: list[bytes], count: int, most: int
) -> None:
    kept, cut = last(lines, count, most_bytes=most)
    assert kept == lines[len(lines) - len(kept) :]
    assert len(kept) <= count
    assert sum(map(len, kept)) <= most
    longer = lines[len(lines) - len(kept) - 1 :] if len(kept) < len(lines) else kept
    fits = len(longer) <= count and sum(map(len, longer)) <= most
    assert longer == kept or not fits
    assert cut or len(kept) == min(count, len(lines))


def write(path: Path, content: bytes, *, at: datetime) -> None:
    match path.suffix:
        case ".gz":
            content = gzip.compress(content)
        case ".xz":
            content = lzma.compress(content)
        case ".bz2":
            content = bz2.compress(content)
    path.write_bytes(content)
    os.utime(path, (at.timestamp(), at.timestamp()))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with five days of rotation, a line an hour, each with a line that has no time."""
    path = tmp_path / "web.log"
    names = ["web.log", "web.log.1", "web.log.2.gz", "web.log.3.xz", "web.log-20260430.bz2"]
    for age, name in enumerate(names):
        day = NOON.replace(hour=0) - timedelta(days=age)
        hours = [day + timedelta(hours=hour) for hour in (1, 13)]
        lines = [b"%s begin\n  trace\n" % at.isoformat().encode() for at in hours]
        write(tmp_path / name, b"".join(lines), at=hours[-1])
    write(tmp_path / "web.log.bak", b"2026-05-04T01:00:00Z not of it\n", at=NOON)
    write(tmp_path / "web.logger", b"2026-05-04T01:00:00Z not of it\n", at=NOON)
    return path


def shown(path: Path, span: Span = ALL, count: int = 0) -> list[str]:
    lines: list[bytes] = []

    def keep(line: bytes) -> bool:
        lines.append(line)
        return True

    read_log(path, span, count, UTC, keep, reach=reach)
    return [line.decode().split("+")[0].removesuffix("\n") for line in lines]


def test_what_rotation_made_of_a_file_is_read_in_order(log: Path) -> None:
    names = [file.path.name for file in files_of(log)]
    assert names == [
        "web.log-20260430.bz2", "web.log.3.xz", "web.log.2.gz", "web.log.1", "web.log",
    ]  # fmt: skip
    times = [line for line in shown(log) if line != "  trace"]
    assert len(times) == 10
    assert times == sorted(times)


def test_lines_between_two_times_are_shown_with_those_that_belong_to_them(log: Path) -> None:
    span = Span(NOON - timedelta(days=1, hours=1), NOON - timedelta(hours=10))
    assert shown(log, span) == [
        "2026-05-03T13:00:00", "  trace", "2026-05-04T01:00:00", "  trace",
    ]  # fmt: skip
    assert shown(log, Span(until=NOON - timedelta(days=4, hours=10))) == [
        "2026-04-30T01:00:00", "  trace",
    ]  # fmt: skip


def test_the_last_lines_come_from_as_many_files_as_it_takes(log: Path) -> None:
    assert shown(log, count=1) == ["  trace"]
    assert shown(log, count=6)[:2] == ["2026-05-03T13:00:00", "  trace"]
    assert shown(log, count=1000) == shown(log)


def test_no_more_is_unpacked_than_is_wanted(log: Path) -> None:
    broken = log.with_name("web.log.2.gz")
    broken.write_bytes(b"this is no gzip")
    os.utime(broken, (NOON.timestamp() - 2 * 86400,) * 2)
    assert len(shown(log, count=8)) == 8
    read = read_log(log, ALL, 9, UTC, lambda _: True, reach=reach)
    # What was rotated away must not keep back what happened since.
    assert shown(log, count=8) == shown(log, count=9)
    [why] = read.damaged
    assert "web.log.2.gz cannot be read whole" in why


def test_a_log_that_cannot_be_read_itself_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "web.log.gz"
    path.write_bytes(b"this is no gzip")
    for count in (0, 9):
        with pytest.raises(SteadError, match="cannot be read whole"):
            read_log(path, ALL, count, UTC, lambda _: True, reach=reach)


def test_a_log_without_times_says_that_none_could_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    write(path, b"one\ntwo\n", at=NOON)
    read = read_log(path, Span(NOON - timedelta(days=1)), 10, UTC, lambda _: True, reach=reach)
    assert not read.stamped
    assert read_log(path, ALL, 10, UTC, lambda _: True, reach=reach).stamped


def test_a_line_without_end_comes_in_pieces_and_a_small_bomb_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(64 * 1024 * 1024)))
    pieces: list[int] = []

    def keep(line: bytes) -> bool:
        pieces.append(len(line))
        return sum(pieces) < LIMIT_BYTES

    assert read_log(path, ALL, 0, UTC, keep, reach=reach).cut
    assert max(pieces) == LINE_BYTES
    assert sum(pieces) == LIMIT_BYTES
    assert read_log(path, ALL, 1_000_000, UTC, lambda _: True, reach=reach).cut


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", Path("/dev/zero")):
        with pytest.raises(SteadError) as caught:
            shown(path)
        assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(SteadError, match="not an absolute path"):
        shown(Path("relative"))


def test_a_log_leads_neither_to_the_agents_own_nor_where_others_point(tmp_path: Path) -> None:
    home, open_to_all = tmp_path / "home", tmp_path / "open"
    for folder in (home, open_to_all):
        folder.mkdir()
    (home / "machine.key").write_bytes(b"secret\n")
    (tmp_path / "way").symlink_to(home / "machine.key")
    (open_to_all / "web.log").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"secret\n")
    open_to_all.chmod(0o777)

    def kept_away(path: Path) -> int:
        return reach(path, home)

    for path in (home / "machine.key", tmp_path / "way", open_to_all / "web.log"):
        for count in (0, 9):
            with pytest.raises(SteadError) as caught:
                read_log(path, ALL, count, UTC, lambda _: True, reach=kept_away)
            assert caught.value.code is Code.DENIED
        with pytest.raises(SteadError) as caught:
            Follower(path, kept_away).begin()
        assert caught.value.code is Code.DENIED


def test_a_log_that_turns_into_a_link_is_followed_no_further(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_bytes(b"one\n")
    follower = Follower(path, reach)
    follower.begin()
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_bytes(b"secret\n")
    path.unlink()
    path.symlink_to("secret")
    with pytest.raises(SteadError) as caught:
        follower.added()
    assert caught.value.code is Code.DENIED


def followed(follower: Follower) -> bytes:
    pieces = bytearray()
    while piece := follower.added():
        pieces += piece
    return bytes(pieces)


def test_what_is_added_is_followed_through_rotation_and_none_of_it_twice(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\npart")
    follower = Follower(path, reach)
    end = follower.begin()
    with path.open("ab") as file:
        file.write(b"ial\n")
    read: list[bytes] = []

    def keep(line: bytes) -> bool:
        read.append(line)
        return True

    read_log(path, ALL, 10, UTC, keep, end, reach=reach)
    assert read == [b"before\n", b"part"]
    assert followed(follower) == b"ial\n"
    with path.open("ab") as file:
        path.rename(tmp_path / "log.1")
        file.write(b"late\n")
    path.write_bytes(b"new\n")
    assert followed(follower) + followed(follower) == b"late\nnew\n"
    path.write_bytes(b"x\n")
    assert followed(follower) == b"x\n"
    path.unlink()
    assert followed(follower) == b""
    path.write_bytes(b"again, and longer\n")
    assert followed(follower) == b"again, and longer\n"
    follower.close()


def test_what_is_shown_ends_at_the_bound() -> None:
    got = bytearray()
    screen = Shown(got.extend)
    assert screen.add(bytes(LIMIT_BYTES - 1))
    assert not screen.add(b"ab")
    screen.flush()
    assert got == bytes(LIMIT_BYTES - 1) + b"a"
    with pytest.raises(FullError):
        screen.add_now(b"c")
    assert len(got) == LIMIT_BYTES


JOURNAL: Sequence[tuple[str, Span, int, dict[str, bool], list[str]]] = [
    ("", ALL, 0, {}, ["--lines=all"]),
    ("nginx", ALL, 100, {"follow": True}, ["--unit=nginx", "--lines=100", "--follow"]),
    (
        "a@b.timer",
        Span(NOON, NOON + timedelta(milliseconds=1)),
        5,
        {"backwards": True},
        [
            "--unit=a@b.timer",
            "--since=@1777896000",
            "--until=@1777896001",
            "--lines=5",
            "--reverse",
        ],
    ),
]


@pytest.mark.parametrize(("unit", "span", "count", "how", "expected"), JOURNAL)
def test_journalctl_is_called_to_the_letter(
    unit: str, span: Span, count: int, how: dict[str, bool], expected: list[str]
) -> None:
    argv = journalctl(unit, span, count, **how)
    assert argv[:5] == ("journalctl", "--no-pager", "--quiet", "--utc", "--output=short-iso")
    assert list(argv[5:]) == expected


@pytest.mark.parametrize("unit", ["-f", "--vacuum-size=0", "a b", "*", "a/b", "a\n", "x" * 300])
def test_what_can_be_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(SteadError, match="cannot be the name of a unit"):
        journalctl(unit, ALL, 1)


needs_journalctl = pytest.mark.skipif(
    shutil.which("journalctl") is None, reason="not run: there is no journalctl"
)
KEPT = lzma.decompress((Path(__file__).parents[2] / "data/logs/web.journal.xz").read_bytes())
SECOND = datetime(2026, 11, 27, 13, 31, 28, tzinfo=UTC)
"""At which lines 10 to 19 were written; those before and after, two seconds off."""


class Kept:
    """Runs the real journalctl on a journal that is kept, which nothing more comes to."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(KEPT)
        self._path = path
        self.followed: list[tuple[str, ...]] = []

    def __call__(self, *argv: str, **options: Any) -> Finished:
        if "--follow" in argv:
            argv = tuple(one for one in argv if one != "--follow")
            self.followed.append(argv)
        return run(*argv, f"--file={self._path}", **options)

    def read(
        self, span: Span, count: int, *, follow: bool = False, over: bool = False
    ) -> list[str]:
        """The messages of the lines that are shown."""
        shown = bytearray()
        journal = Journal(self, lambda _: over)
        assert not journal.read("", span, count, follow=follow, printed=shown.extend)
        lines = [line.partition(": ")[2] or line for line in shown.decode().splitlines()]
        return [line for line in lines if "ournal " not in line]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "web.journal")


def told(first: int, last: int) -> list[str]:
    """The lines of the journal that is kept, from one number to another."""
    blanks = " " * len("2026-11-27T13:31:47+0000 web-01 web[0000]: ")
    found: list[str] = []
    for number in range(first, last + 1):
        found.append(f"line {number}")
        if not number % 10:
            found += [f"{blanks}{line}" for line in ("", "  and more", f"of {number}")]
    return found


@needs_journalctl
@pytest.mark.parametrize("follow", [False, True])
def test_the_last_lines_of_a_span_of_the_journal_are_shown(kept: Kept, follow: bool) -> None:
    soon, later = SECOND + timedelta(seconds=1), SECOND + timedelta(days=9)
    assert kept.read(ALL, 0, follow=follow) == told(0, 29)
    assert kept.read(ALL, 4, follow=follow) == told(27, 29)
    assert kept.read(Span(SECOND), 3, follow=follow) == told(28, 29)
    assert kept.read(Span(SECOND), 100, follow=follow) == told(10, 29)
    assert kept.read(Span(SECOND), 0, follow=follow) == told(10, 29)
    assert kept.read(Span(until=soon), 3, follow=follow, over=True) == told(17, 19)
    assert kept.read(Span(until=later), 3, follow=follow) == told(28, 29)
    assert kept.read(Span(SECOND, soon), 11, follow=follow, over=True) == told(10, 19)
    assert kept.read(Span(SECOND, soon), 10, follow=follow, over=True) == told(10, 19)
    assert kept.read(Span(SECOND, soon), 9, follow=follow, over=True) == told(11, 19)
    assert kept.read(Span(later), 5, follow=follow) == []
    assert len(kept.followed) == (7 if follow else 0)


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_comes_backwards_is_turned_round_within_its_bound(piece: int) -> None:
    data = b"3 c\n2 b\n    \n    bb\n1 a\n"
    for most, expected in (
        (1000, b"1 a\n2 b\n    \n    bb\n3 c\n"),
        (20, b"2 b\n    \n    bb\n3 c\n"),
        (4, b"3 c\n"),
    ):
        turned = Backwards(most)
        for start in range(0, len(data), piece):
            turned.feed(data[start : start + piece])
        assert b"".join(turned.oldest_first()) == expected
        assert (turned.full, turned.count) == (most < 1000, 3)


@needs_journalctl
@pytest.mark.parametrize(("unit", "span", "count", "how", "expected"), JOURNAL)
def test_the_real_journalctl_takes_what_it_is_called_with(
    unit: str, span: Span, count: int, how: dict[str, bool], expected: list[str], tmp_path: Path
) -> None:
    del expected
    argv = [one for one in journalctl(unit, span, count, **how) if one != "--follow"]
    done = subprocess.run(
        [*argv, f"--directory={tmp_path}"], capture_output=True, timeout=30, check=False
    )
    assert b"option" not in done.stderr
    assert b"Failed to parse" not in done.stderr
