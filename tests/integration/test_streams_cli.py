"""Streams and the commands around a backup, as they are typed: real programs over mutual TLS."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
from pathlib import Path

from tests.integration import test_cli
from tests.integration.place import Place

place = test_cli.place
machine = test_cli.machine

_DUMP = "import sqlite3, sys; [print(s) for s in sqlite3.connect(sys.argv[1]).iterdump()]"


def _python(code: str, *words: str | Path) -> str:
    return shlex.join([sys.executable, "-c", code, *map(str, words)])


def _files(place: Place, name: str) -> Path:
    files = place.directory / name
    files.mkdir()
    (files / "a").write_bytes(b"12345")
    return files


def test_a_dump_comes_back_byte_for_byte(place: Place, machine: str) -> None:
    files = _files(place, "streamed")
    database = place.directory / "shop.db"
    with sqlite3.connect(database) as shop:
        shop.execute("create table item (name text)")
        shop.executemany(
            "insert into item values (?)", [(os.urandom(40).hex(),) for _ in "ab" * 99]
        )
    dump = "".join(f"{line}\n" for line in shop.iterdump()).encode()
    shop.close()
    stream = "/streams/shop.sql=" + _python(_DUMP, database)
    (made,) = place.rows("backup", "run", machine, "--path", str(files), "--stream", stream)
    assert (made["files"], made["bytes"]) == (2, 5 + len(dump))
    done = place.stead("backup", "cat", machine, "latest", "/streams/shop.sql")
    assert done.returncode == 0, done.stderr
    assert done.stdout == dump


def test_a_failing_dump_is_no_file_and_after_is_told(place: Place, machine: str) -> None:
    files = _files(place, "failing")
    told = place.directory / "told"
    note = "import os, sys; open(sys.argv[1], 'w').write(os.environ['STEAD_BACKUP_STATE'] + ' ' + os.environ['STEAD_POINT'])"  # noqa: E501
    after = ("--after", _python(note, told))
    bad = "/streams/x=" + _python("import sys; print('half'); sys.exit('the table is locked')")
    done = place.stead(
        "backup", "run", machine, "--path", str(files), "--stream", bad, *after, "--output", "json"
    )
    assert done.returncode == 3, done.stdout
    assert b"the table is locked" in done.stdout
    assert told.read_text().startswith("partial rp_")
    lost = place.stead("backup", "cat", machine, "latest", "/streams/x")
    assert lost.returncode != 0
    assert b"half" not in lost.stdout
    before = ("--before", _python("import sys; sys.exit('not today')"))
    refused = place.stead("backup", "run", machine, "--path", str(files), *before, *after)
    assert refused.returncode != 0
    assert b"not today" in refused.stdout + refused.stderr
    assert told.read_text() == "failed "


def test_after_runs_when_the_backup_takes_too_long(place: Place, machine: str) -> None:
    files = _files(place, "late")
    told = place.directory / "told-late"
    note = "import os, sys; open(sys.argv[1], 'w').write(os.environ['STEAD_BACKUP_STATE'])"
    slow = "/streams/x=" + _python("import time; time.sleep(300)")
    done = place.stead(
        "backup", "run", machine, "--path", str(files), "--stream", slow,
        "--after", _python(note, told), "--timeout", "4s",
    )  # fmt: skip
    assert done.returncode != 0
    assert told.read_text() == "timed_out"


def test_a_set_keeps_its_commands(place: Place, machine: str) -> None:
    files = _files(place, "kept")
    stream = "/streams/kept=" + _python("print('kept')")
    place.good("backup", "set", machine, "--path", str(files), "--stream", stream)
    (made,) = place.rows("backup", "run", machine)
    assert made["files"] == 2
    failing = ("--after", "sh -c 'echo no >&2; exit 7'")
    done = place.stead("backup", "run", machine, "--path", str(files), *failing)
    assert done.returncode == 3
    assert (
        b"the command after the backup ended with 7"
        in " ".join((done.stdout + done.stderr).decode().split()).encode()
    )
    clash = f"{files}/x=true"
    refused = place.stead("backup", "set", machine, "--path", str(files), "--stream", clash)
    assert refused.returncode == 1
    assert b"each other's way" in refused.stdout + refused.stderr
