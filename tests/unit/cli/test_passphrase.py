"""Keys behind a passphrase, as the command line opens, protects and shows them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.authority.authority import load_key
from controller.authority.protected import is_protected, open_key
from controller.cli.main import run
from controller.cli.operator.passphrase import Whose, load_own_key, sealed
from tests.unit.cli.test_renewal import Made, made

WORD = b"correct horse battery"


@pytest.fixture
def here(tmp_path: Path) -> Made:
    return made(tmp_path, begun=datetime.now(UTC) - timedelta(days=10))


@pytest.fixture
def stead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Stead:
    return Stead(tmp_path, capsys)


class Stead:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        got = run(["--home", str(self.home), *words])
        out, err = self.capsys.readouterr()
        assert got == code, err
        return out + err

    def kept_by(self) -> dict[str, str]:
        assert run(["--home", str(self.home), "operator", "key", "show", "-o", "json"]) == 0
        rows = json.loads(self.capsys.readouterr().out)
        return {row["key"]: row["protected_by"] for row in rows}


def word_file(directory: Path, word: bytes = WORD, mode: int = 0o600) -> str:
    path = directory / f"word-{len(list(directory.iterdir()))}"
    path.write_bytes(word + b"\n")
    path.chmod(mode)
    return str(path)


def test_a_key_is_protected_used_and_unprotected(
    here: Made, stead: Stead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_key(here.profile.key).private_numbers()
    assert stead.kept_by() == {"operator": "nothing", "root": "nothing"}
    assert "asks for a passphrase" in stead("operator", "key", "show")
    monkeypatch.setenv("STEAD_NEW_PASSPHRASE_FILE", word_file(tmp_path))
    stead("operator", "key", "protect")
    assert stead.kept_by() == {"operator": "passphrase", "root": "nothing"}
    assert open_key(here.profile.key.read_bytes(), WORD).private_numbers() == before
    assert here.profile.key.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("STEAD_PASSPHRASE_FILE", word_file(tmp_path))
    assert load_own_key(here.profile.key, Whose.OPERATOR).private_numbers() == before
    stead("operator", "renew", "eve")
    stead("operator", "key", "unprotect", "--yes")
    assert load_key(here.profile.key).private_numbers() == before
    assert "has no passphrase" in stead("operator", "key", "unprotect", "--yes", code=1)


def test_the_root_s_key_has_a_passphrase_of_its_own(
    here: Made, stead: Stead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEAD_NEW_ROOT_PASSPHRASE_FILE", word_file(tmp_path))
    stead("operator", "key", "protect", "root")
    assert stead.kept_by() == {"operator": "nothing", "root": "passphrase"}
    monkeypatch.setenv("STEAD_PASSPHRASE_FILE", word_file(tmp_path))
    monkeypatch.setenv("STEAD_ROOT_PASSPHRASE_FILE", word_file(tmp_path, b"another word"))
    assert "root.key" in stead("operator", "renew", "eve", code=4)
    monkeypatch.setenv("STEAD_ROOT_PASSPHRASE_FILE", word_file(tmp_path))
    stead("operator", "renew", "eve")


def test_a_wrong_passphrase_is_refused_and_changes_nothing(
    here: Made, stead: Stead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.profile.key.write_bytes(sealed(load_key(here.profile.key), WORD))
    before = here.profile.key.read_bytes()
    monkeypatch.setenv("STEAD_PASSPHRASE_FILE", word_file(tmp_path, b"a wrong passphrase"))
    monkeypatch.setenv("STEAD_NEW_PASSPHRASE_FILE", word_file(tmp_path, b"another one"))
    for words in (("operator", "key", "protect"), ("operator", "key", "unprotect", "--yes")):
        assert "does not open" in stead(*words, code=4)
    assert "does not open" in stead("machine", "ls", code=4)
    assert here.profile.key.read_bytes() == before


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [(0o640, WORD, "chmod 600"), (0o604, WORD, "chmod 600"), (0o600, b"", "no passphrase")],
)
def test_a_passphrase_that_others_may_read_is_not_used(
    here: Made,
    stead: Stead,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    content: bytes,
    said: str,
) -> None:
    here.profile.key.write_bytes(sealed(load_key(here.profile.key), WORD))
    monkeypatch.setenv("STEAD_PASSPHRASE_FILE", word_file(tmp_path, content, mode))
    assert said in stead("operator", "renew", "eve", code=1)


def command(here: Made, *words: str) -> list[str]:
    code = "import sys; from controller.cli.main import run; sys.exit(run(sys.argv[1:]))"
    return [sys.executable, "-c", code, "--home", str(here.profile.path.parent), *words]


def test_a_passphrase_comes_by_a_descriptor(here: Made) -> None:
    here.profile.key.write_bytes(sealed(load_key(here.profile.key), WORD))
    reading, writing = os.pipe()
    os.write(writing, WORD + b"\n")
    os.close(writing)
    done = subprocess.run(
        command(here, "operator", "renew", "eve", "-o", "json"),
        env={**os.environ, "STEAD_PASSPHRASE_FILE": f"/dev/fd/{reading}"},
        pass_fds=[reading],
        capture_output=True,
    )
    os.close(reading)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "eve"


def test_without_a_terminal_the_way_for_scripts_is_named(here: Made) -> None:
    here.profile.key.write_bytes(sealed(load_key(here.profile.key), WORD))
    done = subprocess.run(
        command(here, "operator", "renew", "eve"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
    )
    assert done.returncode == 1
    assert b"STEAD_PASSPHRASE_FILE" in done.stderr


def test_on_a_terminal_a_passphrase_is_asked_for_and_not_shown(here: Made) -> None:
    here.profile.key.write_bytes(sealed(load_key(here.profile.key), WORD))
    child, terminal = pty.fork()
    if not child:
        argv = command(here, "operator", "renew", "eve")
        os.execv(argv[0], argv)
    said = b""
    answers = [b"a wrong passphrase\n", WORD + b"\n"]
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
        if answers and said.count(b"Passphrase of the operator key") == 3 - len(answers):
            os.write(terminal, answers.pop(0))
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert said.count(b"does not open") == 1
    assert WORD not in said
    assert is_protected(here.profile.key.read_bytes())
