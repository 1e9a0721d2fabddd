"""Scripts: which interpreter runs them, and that nothing of them stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.actions.script import interpreter, laid_out, remove_scripts
from agent.config import AgentHome
from protocol.action import RunScript
from protocol.errors import Code, SteadError
from protocol.ids import TaskId, make_id
from protocol.script import wanted_by

TASK = TaskId(make_id("ts", at_ms=1, random=bytes(10)))


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """An environment in which the machine has bash and python3 alone."""
    for name in ("bash", "python3"):
        (tmp_path / name).touch(mode=0o755)
    return {"PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("shell", "body", "argv"),
    [
        ("bash", b"true", ["bash"]),
        ("bash", b"#!/bin/bash -e -u\n", ["bash", "-e", "-u"]),
        ("bash", b"#!/usr/bin/env -S bash -x\n", ["bash", "-x"]),
        ("bash", b"#!/bin/sh -e\n", ["bash"]),
        ("python", b"#!/usr/bin/env python3\n", ["python3"]),
    ],
)
def test_a_script_gets_its_interpreter_and_the_flags_of_its_own_first_line(
    tools: dict[str, str], shell: str, body: bytes, argv: list[str]
) -> None:
    found = interpreter(RunScript(shell, body, environment=tools))
    assert [Path(found[0]).name, *found[1:]] == argv


@pytest.mark.parametrize("shell", ["sh", "powershell"])
def test_an_interpreter_that_the_machine_lacks_is_named(tools: dict[str, str], shell: str) -> None:
    with pytest.raises(SteadError, match=f"this machine has no {shell}") as caught:
        interpreter(RunScript(shell, b"true", environment=tools))
    assert caught.value.code is Code.PRECONDITION


def test_powershell_reads_no_profile_and_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "pwsh").touch(mode=0o755)
    script = RunScript("powershell", b"#!/bin/sh -x\n", environment={"PATH": str(tmp_path)})
    assert interpreter(script)[1:3] == ("-NoProfile", "-NonInteractive")
    assert interpreter(script)[-1] == "-File"


def test_what_is_no_interpreter_is_refused() -> None:
    with pytest.raises(SteadError, match="is no interpreter"):
        interpreter(RunScript("../evil", b"true"))


@pytest.mark.parametrize(
    "body", [b"", b"#!", b"#!/usr/bin/env", b"#!/usr/bin/env -S", b"#!'", b"#!\xff\n", b"#! \n"]
)
def test_a_first_line_that_names_nothing_names_nothing(body: bytes) -> None:
    assert wanted_by(body) is None


def test_a_script_is_private_while_it_runs_and_gone_afterwards(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent")
    with laid_out(home, TASK, RunScript("sh", b"exit \xff", ("-x", "a b"))) as program:
        path = Path(program.argv[-3])
        assert path.read_bytes() == b"exit \xff"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert program.argv[-2:] == ("-x", "a b")
    assert list(home.scripts.iterdir()) == []


def test_a_script_that_is_there_already_is_never_written_through(tmp_path: Path) -> None:
    home, aim = AgentHome(tmp_path / "agent"), tmp_path / "aim"
    home.scripts.mkdir(parents=True)
    (home.scripts / f"{TASK}.sh").symlink_to(aim)
    with (
        pytest.raises(SteadError, match="cannot be written"),
        laid_out(home, TASK, RunScript("sh", b"true")),
    ):
        pass
    assert not aim.exists()


def test_what_a_killed_agent_left_is_removed(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    remove_scripts(home)
    home.scripts.mkdir()
    (home.scripts / "left.sh").write_bytes(b"secret")
    (home.scripts / "link").symlink_to("/nowhere")
    remove_scripts(home)
    assert list(home.scripts.iterdir()) == []
