"""Every command of `stead-agent` where there is no agent: one line, the next step, a code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from agent.cli import cli

ENROLLED_FIRST = {"status", "run", "backup run", "backup ls", "backup pause", "backup resume"}
ENROLLED_FIRST |= {"backup cancel"}


def commands() -> list[tuple[str, click.Command]]:
    found = []
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            found += [(f"{name} {below}", one) for below, one in command.commands.items()]
        else:
            found.append((name, command))
    return [(name, command) for name, command in found if not command.hidden]


def typed(home: Path, *words: str, stdout: int = subprocess.PIPE) -> tuple[int, bytes, str]:
    argv = [sys.executable, "-c", "from agent.cli import main; main()", "--home", str(home), *words]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=60
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda one: str(one))
def test_help_has_an_example(name: str, command: click.Command) -> None:
    assert (command.epilog or "").startswith(f"Example: stead-agent {name}")


@pytest.mark.parametrize("name", sorted(ENROLLED_FIRST))
def test_a_machine_that_is_not_enrolled_is_told_how_to_be(name: str, tmp_path: Path) -> None:
    code, out, said = typed(tmp_path, *name.split())
    assert (code, out) == (1, b"")
    assert said.startswith("stead-agent: this machine is not enrolled: ")
    assert said.endswith("run `stead-agent enroll`\n")
    assert said.count("\n") == 1


def test_an_error_is_an_object_where_json_was_asked_for(tmp_path: Path) -> None:
    for asked in (("-o", "json"), ("--output=json",)):
        code, out, said = typed(tmp_path, "status", *asked)
        error = json.loads(said)
        assert (code, out, error["error"], error["exit_code"]) == (1, b"", "precondition", 1)
    code, _, said = typed(tmp_path, "status", "-o", "json", "--nonsense")
    assert (code, json.loads(said)["error"]) == (2, "usage")


def test_wrong_words_are_one_line_with_where_to_look(tmp_path: Path) -> None:
    code, _, said = typed(tmp_path, "backup", "pause", "--nonsense")
    assert (code, said.count("\n")) == (2, 1)
    assert "No such option '--nonsense'; see `" in said
    assert said.endswith("backup pause --help`\n")
    code, _, said = typed(tmp_path, "enroll", "--token", "-")
    assert (code, said.count("\n")) == (1, 1)
    assert "this is not an enrollment token" in said


def test_a_home_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"in the way")
    code, _, said = typed(tmp_path / "home/below", "enroll", "--token", "-")
    assert code == 1
    assert said == f"stead-agent: {tmp_path}/home/below/agent: Not a directory\n"


def test_nobody_who_reads_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, _, said = typed(tmp_path, "--help", stdout=writing)
    finally:
        os.close(writing)
    assert (code, said) == (1, "")


def test_a_directory_without_an_agent_is_not_made_fit_to_be_copied(tmp_path: Path) -> None:
    code, out, said = typed(tmp_path, "generalize", "--yes")
    assert (code, out) == (1, b"")
    assert said == (
        f"stead-agent: there is no agent in {tmp_path}/agent; name its directory with --home\n"
    )
