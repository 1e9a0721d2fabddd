"""The agent as a service of macOS and Windows: what the system is told, and the log it keeps."""

from __future__ import annotations

import io
import os
import plistlib
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentHome
from agent.host import log
from agent.host.log_file import LogFile
from agent.host.process import Finished, ProgramError
from agent.service.install import NAME, own_service, program
from agent.service.launchd import LaunchdOwnService, render_plist
from agent.service.windows import RUNNING, STOP_PENDING, STOPPED, encode_status
from agent.services.manager import OWN
from protocol.errors import Code, SteadError

ARGV = ("/opt/Stead & Co/stead-agent", "--home", "/Library/Application Support/Stead", "run")


class Launchctl:
    """Ends with the codes that it is given, by its first word.

    For `lingers` looks it knows a service that was taken out.
    """

    def __init__(self, folder: Path, codes: Mapping[str, int] | None = None) -> None:
        self.codes = codes or {}
        self.path = folder / "stead-agent.plist"
        self.calls: list[tuple[str, ...]] = []
        self.there: list[bool] = []
        self.lingers = 0

    def __call__(self, *argv: str, **_: Any) -> Finished:
        if argv[1] == "print":
            self.lingers -= 1
            return Finished(argv, 0 if self.lingers >= 0 else 113, b"", b"")
        assert argv[1] != "bootstrap" or self.lingers < 0, "Bootstrap failed: 5"
        self.calls.append(argv[1:])
        self.there.append(self.path.exists())
        return Finished(argv, self.codes.get(argv[1], 0), b"", b"refused")


def no_wait(seconds: float) -> None:
    assert seconds > 0


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "log" / "agent.log"


def test_the_service_has_the_name_that_it_does_not_end_itself_by() -> None:
    assert NAME == OWN


def test_launchd_is_told_to_keep_the_agent_alive() -> None:
    told = plistlib.loads(render_plist(ARGV, Path("/state/agent.log")))
    assert told == {
        "Label": "stead-agent",
        "ProgramArguments": list(ARGV),
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 15,
        "ExitTimeOut": 60,
        "HardResourceLimits": {"Core": 0},
        "StandardErrorPath": "/state/agent.log.early",
        "Umask": 0o022,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
@pytest.mark.parametrize("code", [0, 3, 36, 113])
def test_a_daemon_is_put_in_the_place_of_the_one_before(
    code: int, tmp_path: Path, log_path: Path
) -> None:
    launchctl = Launchctl(tmp_path, {"bootout": code})
    launchctl.lingers = 3  # its tasks are given time to end
    own = LaunchdOwnService(launchctl, log_path, no_wait, tmp_path)
    own.install(ARGV)
    assert launchctl.calls == [
        ("bootout", "system/stead-agent"),
        ("enable", "system/stead-agent"),
        ("bootstrap", "system", str(launchctl.path)),
    ]
    assert launchctl.there == [False, True, True]
    assert launchctl.path.stat().st_mode & 0o777 == 0o644
    assert log_path.parent.stat().st_mode & 0o777 == 0o700
    launchctl.calls.clear()
    own.uninstall()
    assert launchctl.calls == [("bootout", "system/stead-agent")]
    assert not launchctl.path.exists()
    own.uninstall()


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
def test_what_launchctl_refuses_is_told(tmp_path: Path, log_path: Path) -> None:
    own = LaunchdOwnService(Launchctl(tmp_path, {"bootstrap": 5}), log_path, no_wait, tmp_path)
    with pytest.raises(ProgramError, match="ended with 5: refused"):
        own.install(ARGV)
    own = LaunchdOwnService(Launchctl(tmp_path, {"bootout": 1}), log_path, no_wait, tmp_path)
    with pytest.raises(ProgramError, match="ended with 1: refused"):
        own.uninstall()


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root")
def test_one_that_does_not_end_is_told(tmp_path: Path, log_path: Path) -> None:
    launchctl = Launchctl(tmp_path)
    launchctl.lingers = 10_000
    own = LaunchdOwnService(launchctl, log_path, no_wait, tmp_path)
    with pytest.raises(ProgramError, match="is there 90 s later"):
        own.install(ARGV)
    assert not launchctl.path.exists()


def test_only_root_changes_daemons(
    tmp_path: Path, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    launchctl = Launchctl(tmp_path)
    own = LaunchdOwnService(launchctl, log_path, no_wait, tmp_path)
    with pytest.raises(SteadError, match="only root") as caught:
        own.install(ARGV)
    assert caught.value.code is Code.DENIED
    with pytest.raises(SteadError, match="only root"):
        own.uninstall()
    assert launchctl.calls == []


def test_on_linux_the_package_brings_the_service(tmp_path: Path) -> None:
    with pytest.raises(SteadError, match="the package brings the service") as caught:
        own_service(AgentHome(tmp_path))
    assert caught.value.code is Code.UNSUPPORTED


def test_a_program_that_is_not_bundled_is_called_by_its_python() -> None:
    argv = program(AgentHome(Path("/h/agent")), "service", "run", executable="py", frozen=False)
    assert argv == ("py", "-m", "agent.cli", "--home", "/h", "service", "run")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (RUNNING, (16, 4, 5, 0, 0, 0, 0)),
        (STOP_PENDING, (16, 3, 0, 0, 0, 0, 60_000)),
        (STOPPED, (16, 1, 0, 0, 0, 0, 0)),
    ],
)
def test_windows_is_told_a_state(state: int, words: tuple[int, ...]) -> None:
    assert encode_status(state) == struct.pack("<7I", *words)


def test_the_log_begins_anew_and_keeps_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    file = LogFile(path, most_bytes=100)
    lines = [f"{number:03} {'x' * 40}\n" for number in range(10)]
    for line in lines:
        file.write(line)
    file.flush()
    kept = path.with_suffix(".1").read_text() + path.read_text()
    assert kept == "".join(lines[-len(kept.splitlines()) :])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["agent.1", "agent.log"]
    assert path.stat().st_size <= 100 + len(lines[0])
    # A new one goes on where it is, and what cannot be encoded is escaped.
    again = LogFile(path, most_bytes=10_000)
    again.write("\udc80\n")
    again.close()
    file.close()
    assert path.read_text().endswith("\\udc80\n")


def test_a_log_that_could_not_be_opened_for_a_moment_goes_on(tmp_path: Path) -> None:
    folder, away = tmp_path / "log", tmp_path / "away"
    folder.mkdir()
    file = LogFile(folder / "agent.log", most_bytes=10)
    file.write("a line that fills it\n")
    folder.rename(away)
    with pytest.raises(OSError, match="No such file"):
        file.write("lost\n")
    away.rename(folder)
    file.write("kept\n")
    file.close()
    assert (folder / "agent.log").read_text() == "kept\n"


def test_the_agent_logs_into_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path / "agent.log")
    assert isinstance(file, io.TextIOBase)
    monkeypatch.setattr(sys, "stderr", file)
    log.info("something_happened", number=1)
    file.close()
    assert '"event":"something_happened","number":1' in (tmp_path / "agent.log").read_text()
