"""A home with a controller, a tenant and a machine, as they are typed: real programs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.typed import typed

WAIT_S = 60


@dataclass(frozen=True)
class Place:
    """A home of its own with a controller, a tenant, and a machine whose agent runs."""

    directory: Path

    def stead(
        self, *words: str, home: str = "home", stdin: str | bytes = b"", apart: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Type a command; `apart` is in a process of its own."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        argv = ["--home", str(self.directory / home), *words]
        if not apart:
            return typed(argv, stdin=data, cwd=self.directory)
        return subprocess.run(
            [*STEAD, *argv],
            input=data,
            capture_output=True,
            timeout=WAIT_S,
            check=False,
            cwd=self.directory,
        )

    def good(self, *words: str, codes: tuple[int, ...] = (0,), **more: Any) -> str:
        done = self.stead(*words, **more)
        assert done.returncode in codes, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def rows(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        return json.loads(self.good(*words, "--output", "json", codes=codes))

    def bad(self, *words: str, code: int, **more: Any) -> str:
        done = self.stead(*words, **more)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        lines = [x for x in done.stderr.decode().splitlines() if x.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]


STEAD = [sys.executable, "-c", "from controller.cli.main import main; main()"]


AGENT = [sys.executable, "-m", "agent.cli"]


def started(argv: list[str], log: Path, **more: Any) -> subprocess.Popen[bytes]:
    with log.open("wb") as stderr:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, **more)


def stopped(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    code = process.wait(WAIT_S)
    if process.stdout is not None:
        process.stdout.close()
    return code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("quarter")
    place = Place(directory)
    ports = ("--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0")
    place.good("controller", "init", "--name", "127.0.0.1", *ports)
    controller = started(
        [*STEAD, "--home", str(directory / "home"), "controller", "serve"],
        directory / "controller.log",
    )
    try:
        assert controller.stdout is not None
        line = controller.stdout.readline().decode()
        # Ports were drawn: the profile is told which, as an administrator would.
        address = line.split()[1]
        (directory / "home" / "operator" / "config.toml").write_text(f'address = "{address}"\n')
        place.good("tenant", "add", "acme")
        token = place.good("token", "new", "--tenant", "acme", "--tag", "office")
        assert token.count("\n") == 1
        subprocess.run(
            [*AGENT, "--home", str(directory / "m1"), "enroll", "--token", "-"],
            input=token.encode(),
            check=True,
            capture_output=True,
            timeout=WAIT_S,
        )
        agent = started([*AGENT, "--home", str(directory / "m1"), "run"], directory / "agent.log")
        try:
            place.good("run", "all", "--timeout", "30s", "--", "true")
            yield place
        finally:
            assert stopped(agent) == 0
    finally:
        assert stopped(controller) == 0


@pytest.fixture(scope="module")
def machine(place: Place) -> str:
    (row,) = place.rows("machine", "ls")
    assert row["linked"]
    assert row["tags"] == ["office"]
    return str(row["name"])
