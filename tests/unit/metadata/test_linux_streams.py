"""What Linux asks a volume about named streams, with recorded answers of NTFS-3G."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.metadata.linux import Linux
from agent.metadata.named import Listing, Named
from protocol.errors import InvalidError
from protocol.vault.chunk import Opener
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine


class Volume:
    """Answers for every file; streams lie beside it as files of the same names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.listed: bytes | int = b""
        self.asked = 0
        patch.setattr(os, "getxattr", self.getxattr)

    def getxattr(self, _where: object, name: str, **_: Any) -> bytes:
        assert name == "ntfs.streams.list"
        self.asked += 1
        if isinstance(self.listed, int):
            raise OSError(self.listed, os.strerror(self.listed))
        return self.listed


def test_an_attribute_that_is_too_large_costs_itself_and_not_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    (machine.files / "one").write_bytes(b"content")
    real = os.listxattr

    def listxattr(where: Any, **options: Any) -> list[str]:
        is_file = isinstance(where, int) and os.fstat(where).st_size == len(b"content")
        return ["user.small", "user.big"] if is_file else real(where, **options)

    def getxattr(_where: object, name: str | bytes, **_: Any) -> bytes:
        if name == b"user.big":
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        if name == b"user.small":
            return b"1"
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "listxattr", listxattr)
    monkeypatch.setattr(os, "getxattr", getxattr)
    report = machine.back_up()
    told = [(one.path.rpartition(b"/")[2], one.reason) for one in report.skipped.kept]
    assert told == [(b"one", "its attribute user.big is larger than 64 KiB")]
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    (entry,) = [one for _, one in reader.entries(report.root) if one.name == b"one"]
    assert (entry.inline, entry.xattrs) == (b"content", ((b"user.small", b"1"),))


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> Volume:
    return Volume(monkeypatch)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").touch()
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("answer", [errno.ENOTSUP, errno.ENODATA, errno.EINVAL])
def test_a_volume_without_streams_is_asked_once(
    volume: Volume, fd: int, tmp_path: Path, answer: int
) -> None:
    system = Linux()
    volume.listed = answer
    for _ in range(100):
        assert system.streams(fd, b"file", (tmp_path / "file").stat()) is None
    assert volume.asked == 1


def test_what_may_not_be_read_says_nothing_of_its_volume(
    volume: Volume, fd: int, tmp_path: Path
) -> None:
    system = Linux()
    volume.listed = errno.EACCES
    found = (tmp_path / "file").stat()
    assert system.streams(fd, b"file", found) is None
    volume.listed = b""
    assert system.streams(fd, b"file", found) == Listing()
    volume.listed = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        system.streams(fd, b"file", found)


def test_streams_are_listed_by_name_with_their_lengths(
    volume: Volume, fd: int, tmp_path: Path
) -> None:
    for name, size in (("file:note", 7), ("file:Zone.Identifier", 26), (":of itself", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    found = (tmp_path / "file").stat()
    volume.listed = b"note\0gone\0Zone.Identifier\0a\\b"
    listing = Linux().streams(fd, b"file", found)
    assert listing is not None
    assert listing.streams == (Named(b"Zone.Identifier", 26), Named(b"note", 7))
    (told,) = listing.left_out
    assert told.startswith("its named stream a\\b has a colon, a slash")
    volume.listed = b"of itself"
    assert Linux().streams(fd, b"", found) == Listing((Named(b"of itself", 1),))


@pytest.mark.parametrize("stream", [b"../other", b"a:b", b"", b"a\0", b"\xff", b"x" * 256])
def test_a_stream_never_leads_elsewhere(fd: int, tmp_path: Path, stream: bytes) -> None:
    system = Linux()
    assert not system.takes_stream(stream)
    for act in (system.read_stream, system.write_stream, system.remove_stream):
        with pytest.raises(InvalidError):
            act(fd, b"file", stream)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
