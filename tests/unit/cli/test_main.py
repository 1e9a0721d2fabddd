from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import main
from controller.cli.output.complaint import wants_json
from controller.cli.output.exits import exit_code_of
from protocol.errors import Code, SteadError


def test_every_command_of_the_table_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in main.COMMANDS:
        assert main.run([name, "--help"]) == 0
        assert f"Example: stead {name}" in " ".join(capsys.readouterr().out.split()), name


def test_help_imports_neither_grpc_nor_the_database() -> None:
    code = (
        "import sys; from controller.cli.main import run; run(['--help']); "
        "sys.exit(bool({'grpc', 'sqlalchemy', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["machine", "ls", "--nonsense"], 2, "stead machine ls --help"),
        (["run", "web-01"], 2, "PROGRAM"),
        (["inventory", "show", "web-01", "--at", "someday"], 2, "is not a point in time"),
        (["patch", "apply", "all", "--timeout", "soon"], 2, "is not a time such as"),
        (["machine", "ls"], 1, "stead operator add"),
        (["controller", "serve"], 1, "stead controller init"),
        (["vault", "check"], 1, "stead controller init"),
        (["tenant", "add", "Acme"], 2, "cannot be a tenant's name"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["--home", str(tmp_path), *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_an_error_is_an_object_where_json_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--home", str(tmp_path), "patch", "apply", "all", "-o", "json"]
    assert main.run(words) == 2
    out, err = capsys.readouterr()
    said = json.loads(err)
    assert (out, said["error"], said["exit_code"]) == ("", "invalid", 2)
    assert "no plan is shown that could be agreed to" in said["message"]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("machine ls -o json", True),
        ("machine ls -ojsonl", True),
        ("machine ls --output=json --nonsense", True),
        ("machine ls --output table", False),
        ("machine ls -o", False),
        ("run web-01 -- tool -o json", False),
    ],
)
def test_json_is_asked_for_before_the_words_of_a_program(words: str, asked: bool) -> None:
    assert wants_json(words.split()) is asked


def test_what_the_system_refuses_is_one_line_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").write_bytes(b"in the way of a directory")
    assert main.run(["--home", str(tmp_path / "home/below"), "controller", "init"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/home/below/root: Not a directory\n"


def test_every_code_has_an_exit_code_of_the_contract() -> None:
    codes = {code: exit_code_of(SteadError("", code=code)) for code in Code}
    assert set(codes.values()) == {1, 2, 4, 6}
    assert codes[Code.UNAVAILABLE] == 6
    assert codes[Code.INVALID] == 2
    assert {code for code, exit_code in codes.items() if exit_code == 4} == {
        Code.DENIED,
        Code.NEEDS_APPROVAL,
        Code.REVOKED,
        Code.UNAUTHENTICATED,
        Code.BAD_SIGNATURE,
        Code.WRONG_TENANT,
        Code.STALE_POLICY,
    }


@pytest.mark.parametrize(
    ("words", "meant"), [(("jobs", "ls"), "'job'"), (("backup", "restor"), "'restore'")]
)
def test_a_command_that_was_nearly_typed_is_named(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2
    assert meant in capsys.readouterr().err
