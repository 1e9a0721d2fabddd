"""Files put and got as it is typed: real programs over mutual TLS, and a hostile controller."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from hashlib import file_digest
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host.lock import holder_of
from controller.cli.app import App
from protocol.parcel import PIECE_BYTES
from protocol.v1 import parcel_pb2 as pb
from tests.integration import test_cli
from tests.integration.place import Place

place = test_cli.place
machine = test_cli.machine


def _pieces(place: Place) -> list[Path]:
    kept = place.directory / "home" / "controller" / "objects" / "parcels"
    return sorted(path for path in kept.rglob("*") if path.is_file())


def test_a_file_goes_there_and_comes_back(place: Place, machine: str) -> None:
    content = os.urandom(2 * PIECE_BYTES + 100)
    local, remote = place.directory / "local", place.directory / "there" / "remote"
    local.write_bytes(content)
    words = ("file", "put", machine, str(local), str(remote))
    place.good(*words, "--make-directories", "--mode", "0640", "--verify")
    assert remote.read_bytes() == content
    assert stat.S_IMODE(remote.stat().st_mode) == 0o640
    assert list(remote.parent.iterdir()) == [remote]
    (row,) = place.rows("file", "get", machine, str(remote), str(place.directory / "back"))
    assert (row["bytes"], row["state"]) == (len(content), "succeeded")
    assert (place.directory / "back").read_bytes() == content
    assert place.stead("file", "get", machine, str(remote), "-").stdout == content
    assert "--overwrite" in place.bad(
        "file", "get", machine, str(remote), str(place.directory / "back"), code=1
    )
    # Nothing of it stays with the controller, and it is on record what was done.
    assert _pieces(place) == []
    # The newest: other tests may have put files before.
    job = next(one for one in place.rows("job", "ls") if one["action"] == "put_file")
    assert f"put {len(content)} bytes" in job["summary"]


def test_what_cannot_be_is_told_and_a_dry_run_sends_nothing(place: Place, machine: str) -> None:
    local = place.directory / "small"
    local.write_bytes(b"abc")
    there = place.directory / "dry"
    place.good("file", "put", machine, str(local), str(there), "--dry-run")
    assert not there.exists()
    assert _pieces(place) == []
    own = place.directory / "m1" / "agent" / "machine.key"
    done = place.stead("file", "get", machine, str(own), "-", "--max-size", "1M")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the agent's own" in done.stderr
    done = place.stead("logs", machine, "--file", str(own))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the agent's own" in done.stderr
    os.mkfifo(place.directory / "pipe")
    place.bad("file", "put", machine, str(place.directory / "pipe"), "/x", code=2)
    place.bad("file", "put", machine, str(local), "relative", code=2)
    place.bad("file", "put", machine, str(local), "/x", "--mode", "9", code=2)
    place.bad("file", "put", machine, str(local), "/x", "--max-size", "2", code=2)
    place.bad("file", "get", machine, "/etc/hosts", "-", "--no-wait", code=2)


def test_a_put_can_be_retried_and_a_get_is_given_again(place: Place, machine: str) -> None:
    local, there = place.directory / "again", place.directory / "not-there" / "again"
    local.write_bytes(b"abc")
    place.stead("file", "get", machine, str(there), str(place.directory / "got"))
    get = place.rows("job", "ls")[0]["job"]
    assert "give that one again" in place.bad("job", "retry", get, code=2)
    place.stead("file", "put", machine, str(local), str(there))
    put = place.rows("job", "ls")[0]["job"]
    there.parent.mkdir()
    place.good("job", "retry", put)
    assert there.read_bytes() == b"abc"
    place.good("file", "get", machine, str(there), str(place.directory / "got"))
    assert (place.directory / "got").read_bytes() == b"abc"


def test_names_of_any_bytes_travel_and_are_shown(place: Place, machine: str) -> None:
    folder = place.directory / "names"
    folder.mkdir()
    there, back = (folder / os.fsdecode(name) for name in (b"\xff\x1b[2J there", b"\xe9 back"))
    local = folder / os.fsdecode(b"caf\xe9")
    local.write_bytes(b"abc")
    place.good("file", "put", machine, str(local), str(there))
    (row,) = place.rows("file", "get", machine, str(there), str(back))
    assert back.read_bytes() == b"abc"
    assert row["file"] == f"{folder}/\\xe9 back"
    assert "\\xe9 back" in place.good(
        "file", "get", machine, str(there), str(back), "--overwrite", apart=True
    )
    # Words that go into an order as text say so, instead of ending in a traceback.
    bad = os.fsdecode(b"caf\xe9")
    for words in (
        ("file", "put", machine, str(local), str(there), "--owner", bad),
        ("run", machine, "--", "printf", bad),
        ("run", machine, "--env", f"A={bad}", "--", "true"),
        ("service", "status", machine, bad),
        ("logs", machine, "--file", f"/{bad}"),
    ):
        assert "caf\\xe9" in place.bad(*words, code=2)
    assert "caf\\xe9" in place.bad("run", machine, "--", "printf", bad, code=2, apart=True)


def test_a_controller_that_edits_a_file_gets_nothing_in_place(place: Place, machine: str) -> None:
    local, remote = place.directory / "signed", place.directory / "edited"
    local.write_bytes(os.urandom(PIECE_BYTES + 1))
    words = ("file", "put", machine, str(local), str(remote))
    agent = holder_of(AgentHome(place.directory / "m1" / "agent").lock)
    assert agent is not None
    os.kill(agent, signal.SIGSTOP)
    try:
        (row,) = place.rows(*words, "--no-wait")
        (kept,) = (path for path in _pieces(place) if ".operator.0000000." in path.name)
        sealed = kept.read_bytes()
        # As if the controller itself handed out another than it was given.
        connection = App(place.directory / "home").connection
        connection.parcels.SendPiece(
            pb.SendPieceRequest(
                tenant_id=kept.parent.name,
                parcel_id=kept.name.partition(".")[0],
                sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]),
            )
        )
    finally:
        os.kill(agent, signal.SIGCONT)
    place.stead("job", "watch", row["job"])
    (task,) = place.rows("job", "show", row["job"])["tasks"]
    assert (task["state"], task["code"]) == ("failed", "bad_signature")
    assert not list(remote.parent.glob("*edited*"))
    # What it has is not what the operator seals, so that is sent again.
    place.good(*words)
    assert remote.read_bytes() == local.read_bytes()
    assert _pieces(place) == []


@pytest.mark.full
def test_memory_is_bounded_both_ways(place: Place, machine: str) -> None:
    local, remote = place.directory / "large", place.directory / "large-there"
    with local.open("wb") as file:
        for _ in range(150):
            file.write(os.urandom(PIECE_BYTES))
    # Not ru_maxrss, which begins with what the process that runs the tests takes itself.
    grown = (
        "import sys; from controller.cli.main import run; code = run(sys.argv[1:]); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); "
        "sys.exit(code)"
    )
    home = ("--home", str(place.directory / "home"))
    for words in (
        ("file", "put", machine, str(local), str(remote), "--yes"),
        ("file", "get", machine, str(remote), str(place.directory / "large-back")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", grown, *home, *words], capture_output=True, check=True
        )
        assert int(done.stderr.split()[-1]) < 200 * 1024
    for path in (remote, place.directory / "large-back"):
        with path.open("rb") as one, local.open("rb") as other:
            assert file_digest(one, "sha256").digest() == file_digest(other, "sha256").digest()
