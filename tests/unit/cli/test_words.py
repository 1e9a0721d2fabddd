"""Small parsers and renderers of the commands."""

from __future__ import annotations

import stat

import pytest

from controller.audit.chain import Head
from controller.cli.audit.heads import parse_head
from controller.cli.commands.machine import parse_tags, tag
from controller.cli.commands.restoring import arrival
from controller.cli.commands.run import parse_environment
from controller.cli.commands.snapshot import untold
from controller.cli.commands.tenant_key import read_key
from controller.cli.machines.sections import Fields, Rows, parts_of
from controller.cli.output.entries import entry_row, render_name, stream_of
from controller.cli.points.opened import tree_path
from protocol.errors import InvalidError, NotFoundError
from protocol.vault.entry import Entry, Owner, Stream, as_file
from protocol.vault.epochs import TenantKeys
from protocol.vault.keys import TenantKey, encode_tenant_key, render_paper_key

KEY = TenantKey(bytes(range(32)))


@pytest.mark.parametrize("words", [["+"], ["-"], ["--web"], ["+web", "-web"]])
def test_tags_that_cannot_be_meant_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidError):
        parse_tags(words)


def test_a_path_arrives_in_the_directory_under_its_own_last_name() -> None:
    assert arrival(b"/tmp/back/", b"etc/hosts") == b"/tmp/back/hosts"
    assert arrival(b"/", b"etc") == b"/etc"
    assert arrival(b"/back", b"") == b"/back"
    assert arrival(b"/", b"") == b"/"


def test_a_reason_that_the_message_gives_is_not_given_again() -> None:
    gaps = {"dmi": "no such file", "disks": "no lsblk"}
    assert untold("dmi: no such file; disks: no lsblk", gaps) == []
    assert untold("dmi: no such file", gaps) == ["disks could not be had: no lsblk"]


def test_no_tag_is_taken_for_an_option() -> None:
    words = ["web-01", "-oauth", "-yellow", "-h", "-y", "+x", "--yes"]
    made = tag.make_context("tag", list(words), resilient_parsing=True)
    assert made.params["tags"] == ("-oauth", "-yellow", "-h", "-y", "+x")
    assert made.params["yes"]


@pytest.mark.parametrize("text", ["3", "3:00", "x:" + "0" * 64, "3:" + "z" * 64])
def test_a_head_is_a_number_and_a_hash(text: str) -> None:
    assert parse_head("7:" + "ab" * 32) == Head(7, b"\xab" * 32)
    with pytest.raises(InvalidError):
        parse_head(text)


def test_an_environment_needs_names() -> None:
    for bad in ("X", "=y"):
        with pytest.raises(InvalidError):
            parse_environment([bad])


def test_a_recovery_key_is_read_from_a_file_and_from_paper() -> None:
    assert read_key(encode_tenant_key(KEY)) == TenantKeys((KEY,))
    assert read_key(render_paper_key(KEY).lower().encode() + b"\n") == TenantKeys((KEY,))
    for bad in (b"", b"hello", b"\xff" * 40):
        with pytest.raises(InvalidError):
            read_key(bad)


def test_paths_are_those_of_the_tree() -> None:
    assert tree_path("/etc//") == b"etc"
    for bad in ("/a/../b", "a\0b"):
        with pytest.raises(NotFoundError):
            tree_path(bad)


def test_entries_read_like_a_listing_of_files() -> None:
    owner = Owner(0, 7, "root")
    link = Entry(b"\xff", stat.S_IFLNK | 0o777, owner, 0, target=b"/etc/\x1b")
    row = entry_row(b"home", link)
    assert row["mode"] == "lrwxrwxrwx"
    assert (row["owner"], row["group"]) == ("root", "7")
    assert row["path"] == "/home/\\xff"
    assert render_name(row, whole=True) == "/home/\\xff -> /etc/\x1b"
    folder = entry_row(b"", Entry(b"etc", stat.S_IFDIR | 0o755, owner, 10**30))
    assert render_name(folder, whole=False) == "etc/"
    assert folder["modified_at"] is None


def test_named_streams_are_listed_and_found_by_name() -> None:
    names = (b"Zone.Identifier", b"a\xff", b"b", b"c", b"d")
    streams = tuple(Stream(name, 26 << n) for n, name in enumerate(names))
    file = Entry(b"x", stat.S_IFREG | 0o644, Owner(0, 0), 0, streams=streams[:2])
    row = entry_row(b"", file)
    assert row["streams"][0] == {"name": "Zone.Identifier", "size_bytes": 26}
    assert render_name(row, whole=False) == "x [Zone.Identifier 26 B, a\\xff 52 B]"
    folder = Entry(b"y", stat.S_IFDIR | 0o755, Owner(0, 0), 0, streams=streams)
    shown = render_name(entry_row(b"", folder), whole=True)
    assert shown == "/y/ [Zone.Identifier 26 B, a\\xff 52 B, b 104 B, 2 more]"
    assert stream_of(file, "a\\xff") == as_file(streams[1])
    with pytest.raises(NotFoundError, match=r"it has Zone\.Identifier, a"):
        stream_of(file, "b")


def test_a_section_becomes_fields_and_tables() -> None:
    facts = {
        "gaps": {},
        "source": "lsblk",
        "os": {"id": "debian", "version": "12"},
        "packages": [
            {"name": "a", "version": "1", "arch": "all", "note": None},
            {"name": "b", "version": "2", "arch": "all", "note": None},
        ],
        "swaps": [],
    }
    assert parts_of("packages", facts) == [
        Fields({"source": "lsblk", "os.id": "debian", "os.version": "12", "swaps": "none"}),
        Rows(
            "packages (2)",
            ["name", "version", "arch"],
            [
                {"name": "a", "version": "1", "arch": "all"},
                {"name": "b", "version": "2", "arch": "all"},
            ],
        ),
    ]
