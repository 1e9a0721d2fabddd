"""What differs between a restore point and what is there now, found by the machine itself."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from agent.backup.restore.fetch import Fetcher
from agent.backup.restore.live import Live, Unseen, is_at_or_below, listings_of
from agent.backup.run import EVERYTHING
from agent.backup.select.choose import Choice
from agent.backup.select.walk import Walk
from protocol.errors import InvalidError
from protocol.selection import Commands, CommandStream, Rules
from protocol.vault.chunk import Opener, Sealer
from protocol.vault.node import Root
from protocol.vault.path import join
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine

Told = dict[str, tuple[str, ...]]


def compared(
    machine: Machine,
    root: Root,
    path: Path | None = None,
    *,
    rules: Rules = EVERYTHING,
    content: bool = False,
    quick: bool = False,
) -> tuple[Told, Unseen]:
    """By path below the files: what differs, `+` and `-` for what was added and removed."""
    files = bytes(machine.files)[1:]
    wanted = files if path is None else bytes(path)[1:]
    unseen = Unseen(b"/")
    with Fetcher(machine.vault, WHO.secret, random.Random(1), patience_s=5) as fetcher:
        reader = TreeReader(Opener(WHO.secret), fetcher.nodes)
        live = Live(
            reader,
            fetcher,
            Sealer(WHO.secret),
            unseen,
            lambda at: is_at_or_below(at, files) or is_at_or_below(files, at),
            content=content,
            quick=quick,
        )
        walk = Walk([files], unseen, choice=Choice(rules, now_ns=0))
        tree = reader.read(*reader.subtree(root, wanted)) if wanted else reader.entries(root)
        found = list(live.differences(tree, listings_of(walk, wanted, [files], b"/")))
    told = {}
    for one in found:
        name = os.path.relpath(b"/" + join(one.parent, one.name), bytes(machine.files)).decode()
        told[name] = ("+",) if one.old is None else ("-",) if one.new is None else one.what
    assert len(told) == len(found)
    return told, unseen


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    chance = random.Random(4)
    (made.files / "sub/deep").mkdir(parents=True)
    (made.files / "sub.txt").write_text("between sub and what is in it, by bytes")
    for number in range(20):
        (made.files / "sub" / f"file{number:02}").write_bytes(chance.randbytes(20_000))
    (made.files / "sub/deep/big").write_bytes(chance.randbytes(1_500_000))
    (made.files / "tiny").write_bytes(b"tiny")
    (made.files / "empty").touch()
    (made.files / "link").symlink_to("tiny")
    os.link(made.files / "tiny", made.files / "tiny-too")
    os.mkfifo(made.files / "pipe")
    return made


def test_nothing_differs_right_after_a_backup(machine: Machine) -> None:
    root = machine.back_up().root
    assert compared(machine, root) == ({}, Unseen(b"/"))
    assert compared(machine, root, content=True)[0] == {}
    assert compared(machine, root, machine.files / "sub")[0] == {}
    assert compared(machine, root, machine.files / "sub/deep/big", content=True)[0] == {}


def test_every_kind_of_difference_is_named(machine: Machine) -> None:
    files = machine.files
    root = machine.back_up().root
    (files / "sub/file00").write_bytes(b"shorter")
    (files / "sub/file01").unlink()
    (files / "sub/file02").chmod(0o600)
    (files / "sub/new").mkdir()
    (files / "sub/new/below").write_text("new")
    os.utime(files / "sub/file03", ns=(5, 5))
    os.setxattr(files / "sub/file04", "user.mood", b"good")
    (files / "link").unlink()
    (files / "link").symlink_to("empty")
    (files / "pipe").unlink()
    (files / "pipe").write_text("a file now")
    (files / "tiny-too").unlink()
    (files / "tiny-too").write_bytes(b"tiny")
    stat = (files / "tiny").stat()
    os.utime(files / "tiny-too", ns=(0, stat.st_mtime_ns))
    (files / "sub/deep/big").unlink()
    (files / "sub/deep").rmdir()
    told, unseen = compared(machine, root)
    assert told == {
        "sub/file00": ("content", "time"),
        "sub/file01": ("-",),
        "sub/file02": ("mode",),
        "sub/new": ("+",),
        "sub/new/below": ("+",),
        "sub/file03": ("time",),
        "sub/file04": ("attributes",),
        "link": ("target", "time"),
        "pipe": ("type",),
        "tiny": ("links",),
        "tiny-too": ("links",),
        "sub/deep": ("-",),
        "sub/deep/big": ("-",),
    }
    assert not unseen.missing
    below = compared(machine, root, files / "sub")[0]
    assert below == {name: what for name, what in told.items() if name.startswith("sub/")}
    assert compared(machine, root, files / "sub/file01")[0] == {"sub/file01": ("-",)}


def edited(path: Path, *, keep_time: bool) -> None:
    """Change one byte and no length."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    time = stat.st_mtime_ns + (0 if keep_time else 1)
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("name", ["tiny", "sub/file07", "sub/deep/big"])
def test_content_of_one_length_is_compared_as_closely_as_asked(machine: Machine, name: str) -> None:
    (machine.files / "tiny-too").unlink()
    root = machine.back_up().root
    path = machine.files / name
    edited(path, keep_time=True)
    assert compared(machine, root)[0] == {}
    assert compared(machine, root, content=True)[0] == {name: ("content",)}
    edited(path, keep_time=False)
    assert compared(machine, root)[0] == {name: ("time",)}
    edited(path, keep_time=True)
    assert compared(machine, root)[0] == {name: ("content", "time")}
    edited(path, keep_time=True)
    assert compared(machine, root, quick=True)[0] == {name: ("content", "time")}


def test_what_the_rules_leave_out_is_not_added(machine: Machine) -> None:
    root = machine.back_up().root
    (machine.files / "cache").mkdir()
    (machine.files / "cache/x").touch()
    (machine.files / "sub/y.iso").touch()
    rules = Rules(exclude=(b"cache/", b"*.iso"), no_defaults=True)
    assert compared(machine, root, rules=rules)[0] == {}
    assert set(compared(machine, root)[0]) == {"cache", "cache/x", "sub/y.iso"}


def test_the_output_of_programs_is_nowhere_and_not_missed(machine: Machine) -> None:
    stream = CommandStream(b"/streams/said", ("echo", "hello"))
    root = machine.back_up(commands=Commands((stream,))).root
    unseen = Unseen(b"/")
    assert compared(machine, root, Path("/"))[0].keys() <= {os.path.relpath("/", machine.files)}
    walk = Walk([bytes(machine.files)[1:]], unseen)
    with pytest.raises(InvalidError, match="program"):
        list(listings_of(walk, b"streams/said", [bytes(machine.files)[1:]], b"/"))


def test_what_cannot_be_looked_at_is_said_and_not_taken_for_removed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine.back_up().root
    real = os.open

    def refusing(path: object, *args: object, **kwargs: object) -> int:
        if path in {b"deep", b"file05"}:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    told, unseen = compared(machine, root)
    assert told == {}
    assert {one.path.rpartition(b"/")[2] for one in unseen.kept} == {b"deep", b"file05"}
    assert unseen.missing == 2


def test_a_path_that_is_gone_is_removed_with_all_below(machine: Machine) -> None:
    root = machine.back_up().root
    machine.files.rename(machine.files.with_name("elsewhere"))
    told, unseen = compared(machine, root)
    assert set(told.values()) == {("-",)}
    assert len(told) == root.entries - len(machine.files.parts) + 1
    assert not unseen.missing


def test_content_that_the_vault_lost_is_said(machine: Machine) -> None:
    root = machine.back_up().root
    path = machine.files / "sub/file07"
    os.utime(path, ns=(5, 5))
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    entry = reader.get(root, bytes(path)[1:])
    assert entry.extents[0].reference is not None
    del machine.vault.chunks[entry.extents[0].reference.id]
    told, unseen = compared(machine, root)
    assert told == {"sub/file07": ("time",)}
    assert [one.path for one in unseen.kept] == [bytes(path)[1:]]
